//! The live view: a screen of curves, decisions and figures of one run. It follows the run's event file, so a search
//! of this process (`run --tui`), one of another process and a finished one look the same.

mod collapse;
mod draw;
mod follow;
mod state;

use std::io::{IsTerminal, Stdout, Write, stderr, stdin, stdout};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nasfw_framework::trainer::Interrupt;
use nasfw_framework::{Error, Result, device};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};

pub use draw::to_text;
use draw::{Look, clamp, draw};
pub use follow::Follower;
pub use state::About;

use super::terminal::{Stream, has_colours};

/// A frame at least this often.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether another process is at work.
const LOOK: Duration = Duration::from_secs(1);
/// So long the end of a search waits for its view's.
const JOIN: Duration = Duration::from_secs(2);
/// Messages kept while the view is on.
const MOST_HELD: usize = 100;

/// Whether the screen is the view's.
static ON: AtomicBool = AtomicBool::new(false);
/// Held while a frame is drawn.
static DRAWING: Mutex<()> = Mutex::new(());
/// Messages that wait for the view's end.
static HELD: Mutex<Vec<String>> = Mutex::new(vec![]);

/// Whether the screen is the view's, so that nothing else may be printed.
pub fn is_on() -> bool {
    ON.load(Ordering::SeqCst)
}

/// Keeps a message until the view has ended.
pub fn hold(text: &str) {
    if let Ok(mut held) = HELD.lock() {
        if held.len() == MOST_HELD {
            held.remove(0);
        }
        held.push(text.trim_end().to_owned());
    }
}

/// Gives the terminal back as it was and prints what was held. Without a view it does nothing, so whatever ends the
/// program or prints an error calls it.
pub fn restore() {
    if !ON.swap(false, Ordering::SeqCst) {
        return;
    }
    // A frame under way must not end up on the user's screen; but if drawing it is what went wrong, don't wait for it.
    for _ in 0..20 {
        match DRAWING.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    for line in HELD
        .lock()
        .map(|mut h| std::mem::take(&mut *h))
        .into_iter()
        .flatten()
    {
        let _ = writeln!(stderr().lock(), "{line}");
    }
}

extern "C" fn at_exit() {
    restore();
}

/// Refuses where there is no terminal. `typed` asks for the view; `help` says what to type instead.
pub fn need_terminal(typed: &str, help: &str) -> Result<()> {
    if stdin().is_terminal() && stdout().is_terminal() {
        return Ok(());
    }
    Err(Error::Incompatible {
        what: typed.into(),
        why: "standard input and output must be a terminal".into(),
        help: help.into(),
    })
}

/// The terminal while it is the view's.
struct Screen {
    /// Never dropped: it would complain of a terminal that is gone, to that terminal. [`restore`] does what it would do.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    fn enter() -> std::io::Result<Self> {
        static REGISTER: Once = Once::new();
        // SAFETY: the function is there as long as the program and unwinds nowhere.
        REGISTER.call_once(|| unsafe {
            libc::atexit(at_exit);
        });
        ON.store(true, Ordering::SeqCst);
        let enter = || {
            enable_raw_mode()?;
            execute!(stdout(), EnterAlternateScreen, cursor::Hide)?;
            // The alternate screen begins empty; clearing it would ask the terminal where its cursor is, which not every
            // one answers.
            let terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(stdout()))?);
            Ok(Self { terminal })
        };
        enter().inspect_err(|_| restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// How a view ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The user left it, or this program is at its end.
    AsWanted,
    /// Its terminal was closed.
    TerminalGone,
}

/// Waits for input, for so long at most. Gives false once the terminal is closed: reading it would then find its end,
/// again and again.
fn wait(longest: Duration) -> bool {
    let mut terminal = libc::pollfd {
        fd: stdin().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let longest = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: it is one valid entry, for the time of the call.
    let found = unsafe { libc::poll(&raw mut terminal, 1, longest) };
    found <= 0 || terminal.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) == 0
}

/// Shows a run until the user leaves, something else ends the view, or `end` is set. With `interrupt` the search is
/// this process's own and Ctrl-C asks it to stop.
///
/// # Errors
/// A terminal or an event file that can't be used.
pub fn show(
    run: &Path,
    about: About,
    interrupt: Option<&Interrupt>,
    end: &AtomicBool,
) -> Result<Left> {
    let terminal = || Error::io("use", "the terminal");
    let mut follower = Follower::new(run, about);
    let mut look = Look {
        colour: has_colours(Stream::Out),
        own: interrupt.is_some(),
        ..Look::default()
    };
    let mut looked: Option<Instant> = None;
    let mut screen = Screen::enter().map_err(terminal())?;
    while is_on() && !end.load(Ordering::SeqCst) {
        follower.poll().map_err(Error::io("read", run))?;
        if look.own {
            follower.state.memory = device::peak_memory();
        } else if looked.is_none_or(|at| at.elapsed() > LOOK) {
            follower.look_for_process();
            looked = Some(Instant::now());
        }
        look.scroll = clamp(look.scroll, follower.state.edges.len(), 1);
        look.stopping = interrupt.is_some_and(Interrupt::is_asked);
        {
            let _drawing = DRAWING.lock();
            if !is_on() {
                break;
            }
            let drawn = screen
                .terminal
                .draw(|frame| draw(&follower.state, look, frame.area(), frame.buffer_mut()));
            if let Err(e) = drawn {
                return match wait(Duration::ZERO) {
                    true => Err(terminal()(e)),
                    false => Ok(Left::TerminalGone),
                };
            }
        }
        if !wait(TICK) {
            return Ok(Left::TerminalGone);
        }
        while event::poll(Duration::ZERO).map_err(terminal())? {
            if let Event::Key(key) = event::read().map_err(terminal())?
                && key.kind == KeyEventKind::Press
                && !act(key, &mut look, interrupt)
            {
                return Ok(Left::AsWanted);
            }
        }
    }
    Ok(Left::AsWanted)
}

/// Does what a key asks for; false ends the view.
fn act(key: KeyEvent, look: &mut Look, interrupt: Option<&Interrupt>) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => match interrupt {
            Some(interrupt) => interrupt.stop("Ctrl-C"),
            None => return false,
        },
        KeyCode::Esc if look.help => look.help = false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('?') | KeyCode::Char('h') => look.help = !look.help,
        KeyCode::Up | KeyCode::Char('k') => look.scroll = look.scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => look.scroll = look.scroll.saturating_add(1),
        KeyCode::PageUp => look.scroll = look.scroll.saturating_sub(10),
        KeyCode::PageDown => look.scroll = look.scroll.saturating_add(10),
        KeyCode::Home => look.scroll = 0,
        KeyCode::End => look.scroll = usize::MAX,
        _ => {}
    }
    true
}

/// The view of this process's own search, in a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Live {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Begins to show `run`.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub fn start(run: &Path, about: About, interrupt: Interrupt) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let (run, stop) = (run.to_owned(), Arc::clone(&end));
        // What is printed from now on waits for the view.
        let thread = std::thread::Builder::new()
            .name("view".into())
            .spawn(move || {
                match show(&run, about, Some(&interrupt), &stop) {
                    Ok(Left::AsWanted) => {}
                    Ok(Left::TerminalGone) => interrupt.notice("the terminal was closed"),
                    // The search must not end for the sake of its view.
                    Err(e) => tracing::warn!("the view ended: {e}"),
                }
            })
            .map_err(Error::io("start", "the view's thread"))?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let asked = Instant::now();
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            // A terminal that closes at the wrong moment can hold it for ever.
            if asked.elapsed() > JOIN {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

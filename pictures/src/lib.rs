//! SVG documents as PNG and as PDF. The fonts of the machine play no part, so that all machines draw the same.

use std::sync::{Arc, OnceLock};

use krilla::Document;
use krilla::geom::Size;
use krilla::page::PageSettings;
use krilla_svg::{SurfaceExt, SvgSettings};
use nasfw_framework::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, Tree, fontdb::Database};

/// Points of PDF per pixel of SVG, of which there are 96 to an inch.
const POINTS: f32 = 72.0 / 96.0;

fn invalid(why: impl ToString) -> Error {
    Error::Invalid {
        what: "picture".into(),
        why: why.to_string(),
    }
}

fn tree(svg: &str) -> Result<Tree> {
    let options = usvg::Options {
        fontdb: fonts(),
        font_family: "DejaVu Sans".into(),
        ..usvg::Options::default()
    };
    Tree::from_str(svg, &options).map_err(invalid)
}

/// A picture as a file's bytes, with its size in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Png {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// The file.
    pub bytes: Vec<u8>,
}

/// Draws an SVG document as a PNG on white ground, with so many pixels for each of the SVG's.
///
/// # Errors
/// [`Error::Invalid`] for a text that is no SVG, and one that is too large for a picture.
pub fn png(svg: &str, scale: f32) -> Result<Png> {
    let tree = tree(svg)?;
    let size = tree.size();
    let (width, height) = (size.width() * scale, size.height() * scale);
    let mut picture = Pixmap::new(width.ceil() as u32, height.ceil() as u32).ok_or_else(|| {
        invalid(format!(
            "it is too large for a picture: {width} by {height}"
        ))
    })?;
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut picture.as_mut(),
    );
    Ok(Png {
        width: picture.width(),
        height: picture.height(),
        bytes: picture.encode_png().map_err(invalid)?,
    })
}

/// Draws an SVG document as a PDF of one page of its size.
///
/// # Errors
/// [`Error::Invalid`] for a text that is no SVG, and one that no page can have.
pub fn pdf(svg: &str) -> Result<Vec<u8>> {
    let tree = tree(svg)?;
    let (width, height) = (tree.size().width() * POINTS, tree.size().height() * POINTS);
    let none = || invalid("it has no size that a page can have");
    let mut document = Document::new();
    let mut page = document.start_page_with(PageSettings::from_wh(width, height).ok_or_else(none)?);
    let mut surface = page.surface();
    let size = Size::from_wh(width, height).ok_or_else(none)?;
    surface
        .draw_svg(&tree, size, SvgSettings::default())
        .ok_or_else(none)?;
    surface.finish();
    page.finish();
    document.finish().map_err(|e| invalid(format!("{e:?}")))
}

/// DejaVu Sans, and nothing else.
fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let load = || {
        let mut fonts = Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    };
    Arc::clone(FONTS.get_or_init(load))
}

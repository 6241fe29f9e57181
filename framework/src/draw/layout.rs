//! Layered layout of a directed acyclic graph: every node and every edge label gets a rectangle of
//! its own, every edge a path of straight pieces that touches no rectangle but its ends'.
//!
//! Sugiyama, Tagawa & Toda's method (1981): vertices are put in rows, edges that pass a row get a
//! slot of their own in it, slots are ordered to cross little, and then moved sideways to make
//! edges straight.

use super::{Direction, Graph, Style, text_size};

/// A rectangle in pixels, given by its centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// Where one edge runs: straight from point to point, from the bottom of its source to the top of its target, or from the
/// right side to the left.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub points: Vec<(f64, f64)>,
    pub label: Option<Rect>,
}

/// The laid-out graph; coordinates start at (0, 0).
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub width: f64,
    pub height: f64,
    /// In the order of the graph's nodes.
    pub nodes: Vec<Rect>,
    /// In the order of the graph's edges.
    pub edges: Vec<Route>,
}

const ROW_GAP: f64 = 26.0;
const SIDE_GAP: f64 = 14.0;
const PORT_GAP: f64 = 12.0;
const BEND_WIDTH: f64 = 6.0;
const PADDING: (f64, f64) = (20.0, 12.0);
/// Rounds of ordering and of moving sideways.
const ORDER_SWEEPS: usize = 24;
const MOVE_SWEEPS: usize = 400;
/// Rounds of swapping neighbours; few are needed.
const SWAP_ROUNDS: usize = 100;
/// Up to this many slots all rounds are made, of more in proportion fewer.
const SLOTS: usize = 2_000;

/// Something that takes room in a row: a node, an edge's label, or a place where an edge passes.
struct Slot {
    row: usize,
    width: f64,
    height: f64,
    /// Slots of the row above and the row below that an edge connects with this one.
    above: Vec<usize>,
    below: Vec<usize>,
    bend: bool,
}

/// The layout in this direction. From left to right it is that from top to bottom of boxes that lie on their side, turned.
pub(super) fn layout(graph: &Graph, direction: Direction) -> Layout {
    let down = |size: (f64, f64)| match direction {
        Direction::Down => size,
        Direction::Right => (size.1, size.0),
    };
    let size = |lines: &[String], share: f64| {
        let (width, height) = text_size(lines);
        down((width + PADDING.0 * share, height + PADDING.1 * share))
    };
    let rows_per_rank = if graph.edges.iter().any(|e| !e.label.is_empty()) {
        2
    } else {
        1
    };
    let ranks = ranks(graph);
    let mut slots: Vec<Slot> = graph
        .nodes
        .iter()
        .zip(&ranks)
        .map(|(node, rank)| {
            let (width, height) = size(&node.label, 1.0);
            Slot::new(rank * rows_per_rank, width, height, false)
        })
        .collect();
    let chains = chains(graph, &mut slots, |label| size(label, 0.5));
    let rows = in_order(order(&slots), graph.nodes.len());
    let x = positions(&slots, &rows);

    let mut tops = Vec::with_capacity(rows.len());
    let mut height = 0.0;
    for row in &rows {
        let tallest = row.iter().map(|&s| slots[s].height).fold(0.0, f64::max);
        tops.push((height, tallest));
        height += tallest + ROW_GAP;
    }
    height = (height - ROW_GAP).max(0.0);
    let left = (0..slots.len())
        .map(|s| x[s] - slots[s].width / 2.0)
        .fold(f64::INFINITY, f64::min);
    let right = (0..slots.len())
        .map(|s| x[s] + slots[s].width / 2.0)
        .fold(left, f64::max);
    let rect = |s: usize| {
        let (top, tallest) = tops[slots[s].row];
        Rect {
            x: x[s] - left,
            y: top + tallest / 2.0,
            width: slots[s].width,
            height: slots[s].height,
        }
    };
    let ports = ports(&chains, &slots, &x);
    let edges = chains
        .iter()
        .zip(ports)
        .map(|(chain, (leave, arrive))| {
            let (from, to) = (rect(chain.from), rect(chain.to));
            // Straight within every row, so that nothing beside it in the row is touched.
            let band = |s: usize| {
                let (top, tallest) = tops[slots[s].row];
                (top, top + tallest)
            };
            let (out, into) = (from.x + leave, to.x + arrive);
            let mut points = vec![(out, from.y + from.height / 2.0), (out, band(chain.from).1)];
            for &s in &chain.through {
                points.push((x[s] - left, band(s).0));
                points.push((x[s] - left, band(s).1));
            }
            points.push((into, band(chain.to).0));
            points.push((into, to.y - to.height / 2.0));
            Route {
                points,
                label: chain.label.map(rect),
            }
        })
        .collect();
    let found = Layout {
        width: right - left,
        height,
        nodes: (0..graph.nodes.len()).map(rect).collect(),
        edges,
    };
    match direction {
        Direction::Down => found,
        Direction::Right => found.turned(),
    }
}

impl Layout {
    /// What was below is at the right, and what was at the right is below.
    fn turned(self) -> Self {
        let rect = |r: Rect| Rect {
            x: r.y,
            y: r.x,
            width: r.height,
            height: r.width,
        };
        let edges = self.edges.into_iter().map(|route| Route {
            points: route.points.into_iter().map(|(x, y)| (y, x)).collect(),
            label: route.label.map(rect),
        });
        Self {
            width: self.height,
            height: self.width,
            nodes: self.nodes.into_iter().map(rect).collect(),
            edges: edges.collect(),
        }
    }
}

/// The rows as they are or mirrored, whichever has more of the nodes (the first slots) in their order.
fn in_order(mut rows: Vec<Vec<usize>>, nodes: usize) -> Vec<Vec<usize>> {
    let wrong = |row: &Vec<usize>| {
        let mut numbers: Vec<usize> = row.iter().copied().filter(|&s| s < nodes).collect();
        let pairs = numbers.len() * numbers.len().saturating_sub(1) / 2;
        (inversions(&mut numbers), pairs)
    };
    let (wrong, pairs) = rows
        .iter()
        .map(wrong)
        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    if 2 * wrong > pairs {
        rows.iter_mut().for_each(|row| row.reverse());
    }
    rows
}

/// Length of the longest path that leads to each node; what ends at the output ends at the bottom.
fn ranks(graph: &Graph) -> Vec<usize> {
    let mut ranks = vec![0; graph.nodes.len()];
    // As many rounds as a path can be long; edges that would close a cycle can't make it endless.
    for _ in 0..graph.nodes.len() {
        for edge in &graph.edges {
            ranks[edge.to] = ranks[edge.to]
                .max(ranks[edge.from] + 1)
                .min(graph.nodes.len());
        }
    }
    let last = ranks.iter().copied().max().unwrap_or(0);
    for (node, rank) in graph.nodes.iter().zip(&mut ranks) {
        if node.style == Style::Terminal && *rank > 0 {
            *rank = last;
        }
    }
    ranks
}

impl Slot {
    fn new(row: usize, width: f64, height: f64, bend: bool) -> Self {
        Self {
            row,
            width,
            height,
            above: Vec::new(),
            below: Vec::new(),
            bend,
        }
    }
}

/// The slots of one edge, from its source down to its target.
struct Chain {
    from: usize,
    to: usize,
    through: Vec<usize>,
    label: Option<usize>,
}

fn chains(
    graph: &Graph,
    slots: &mut Vec<Slot>,
    size: impl Fn(&[String]) -> (f64, f64),
) -> Vec<Chain> {
    let rows = slots.iter().map(|s| s.row).max().unwrap_or(0) + 1;
    let mut filled = vec![0.0; rows];
    for slot in slots.iter() {
        filled[slot.row] += slot.width + SIDE_GAP;
    }
    let mut chains = Vec::with_capacity(graph.edges.len());
    for edge in &graph.edges {
        let between = slots[edge.from].row + 1..slots[edge.to].row;
        // Labels stand in the rows between two ranks; in the emptiest of those the edge passes.
        let row = between
            .clone()
            .filter(|row| !edge.label.is_empty() && row % 2 == 1)
            .min_by(|&a, &b| filled[a].total_cmp(&filled[b]));
        let mut chain = Chain {
            from: edge.from,
            to: edge.to,
            through: Vec::new(),
            label: None,
        };
        let mut last = edge.from;
        for r in between {
            let slot = slots.len();
            if row == Some(r) {
                let (width, height) = size(&edge.label);
                slots.push(Slot::new(r, width, height, false));
                chain.label = Some(slot);
            } else {
                slots.push(Slot::new(r, BEND_WIDTH, 0.0, true));
            }
            filled[r] += slots[slot].width + SIDE_GAP;
            slots[last].below.push(slot);
            slots[slot].above.push(last);
            chain.through.push(slot);
            last = slot;
        }
        slots[last].below.push(edge.to);
        slots[edge.to].above.push(last);
        chains.push(chain);
    }
    chains
}

/// The slots of each row from left to right, so ordered that edges cross little.
fn order(slots: &[Slot]) -> Vec<Vec<usize>> {
    let count = slots.iter().map(|s| s.row).max().map_or(0, |last| last + 1);
    let mut rows = vec![Vec::new(); count];
    for (s, slot) in slots.iter().enumerate() {
        rows[slot.row].push(s);
    }
    let mut best = rows.clone();
    let mut fewest = crossings(slots, &best);
    let rounds = within(SWAP_ROUNDS, slots);
    for sweep in 0..within(ORDER_SWEEPS, slots) {
        let mut place = vec![0.0; slots.len()];
        set_places(&rows, &mut place);
        let down = sweep % 2 == 0;
        for r in 0..count {
            let row = &mut rows[if down { r } else { count - 1 - r }];
            let wish = |s: usize| {
                let near = if down {
                    &slots[s].above
                } else {
                    &slots[s].below
                };
                let sum: f64 = near.iter().map(|&n| place[n]).sum();
                if near.is_empty() {
                    place[s]
                } else {
                    sum / near.len() as f64
                }
            };
            row.sort_by(|&a, &b| wish(a).total_cmp(&wish(b)));
            let places: Vec<f64> = row
                .iter()
                .enumerate()
                .map(|(k, _)| even(k, row.len()))
                .collect();
            row.iter().zip(places).for_each(|(&s, p)| place[s] = p);
        }
        swap_neighbours(slots, &mut rows, rounds);
        let now = crossings(slots, &rows);
        if now < fewest {
            fewest = now;
            best.clone_from(&rows);
        }
    }
    best
}

/// So many rounds, or fewer where there are very many slots.
fn within(rounds: usize, slots: &[Slot]) -> usize {
    (rounds * SLOTS / slots.len().max(SLOTS)).max(2)
}

/// Place of the k-th of n slots, as a share of the row.
fn even(k: usize, n: usize) -> f64 {
    (k as f64 + 0.5) / n as f64
}

fn set_places(rows: &[Vec<usize>], place: &mut [f64]) {
    for row in rows {
        for (k, &s) in row.iter().enumerate() {
            place[s] = even(k, row.len());
        }
    }
}

/// Swaps neighbours in a row as long as that removes crossings, for at most so many rounds.
fn swap_neighbours(slots: &[Slot], rows: &mut [Vec<usize>], rounds: usize) {
    let mut place = vec![0; slots.len()];
    for row in rows.iter() {
        row.iter().enumerate().for_each(|(k, &s)| place[s] = k);
    }
    // Crossings of two slots' own edges, the first slot being left of the second. Only these change when they swap.
    let between = |place: &[usize], a: usize, b: usize| {
        let sides = [
            (&slots[a].above, &slots[b].above),
            (&slots[a].below, &slots[b].below),
        ];
        let count = |(a, b): (&Vec<usize>, &Vec<usize>)| {
            let right = |x: &usize| b.iter().filter(|y| place[*x] > place[**y]).count();
            a.iter().map(right).sum::<usize>()
        };
        sides.into_iter().map(count).sum::<usize>()
    };
    for _ in 0..rounds {
        let mut swapped = false;
        for row in rows.iter_mut() {
            for k in 1..row.len() {
                let (a, b) = (row[k - 1], row[k]);
                if between(&place, b, a) < between(&place, a, b) {
                    row.swap(k - 1, k);
                    place.swap(a, b);
                    swapped = true;
                }
            }
        }
        if !swapped {
            return;
        }
    }
}

fn crossings(slots: &[Slot], rows: &[Vec<usize>]) -> usize {
    let mut place = vec![0; slots.len()];
    for row in rows {
        row.iter().enumerate().for_each(|(k, &s)| place[s] = k);
    }
    let mut count = 0;
    for row in rows {
        // From left to right by their upper ends; those from one slot do not cross.
        let mut links: Vec<(usize, usize)> = row
            .iter()
            .flat_map(|&s| slots[s].below.iter().map(move |&t| (s, t)))
            .map(|(s, t)| (place[s], place[t]))
            .collect();
        links.sort_unstable();
        let mut ends: Vec<usize> = links.into_iter().map(|l| l.1).collect();
        count += inversions(&mut ends);
    }
    count
}

/// Pairs of which the larger one comes first; sorts on the way.
fn inversions(numbers: &mut [usize]) -> usize {
    if numbers.len() < 2 {
        return 0;
    }
    let (left, right) = numbers.split_at_mut(numbers.len() / 2);
    let mut count = inversions(left) + inversions(right);
    let mut passed = 0;
    for r in right.iter() {
        passed += left[passed..].iter().take_while(|l| *l <= r).count();
        count += left.len() - passed;
    }
    numbers.sort();
    count
}

/// The x coordinate of every slot: rows are moved in turn to where their neighbours pull them.
fn positions(slots: &[Slot], rows: &[Vec<usize>]) -> Vec<f64> {
    let mut x = vec![0.0; slots.len()];
    for row in rows {
        let offsets = offsets(slots, row);
        let middle = offsets.last().copied().unwrap_or(0.0) / 2.0;
        row.iter()
            .zip(offsets)
            .for_each(|(&s, offset)| x[s] = offset - middle);
    }
    for sweep in 0..within(MOVE_SWEEPS, slots) {
        for r in 0..rows.len() {
            let row = &rows[if sweep % 2 == 0 {
                r
            } else {
                rows.len() - 1 - r
            }];
            let mut wishes = Vec::with_capacity(row.len());
            let mut weights = Vec::with_capacity(row.len());
            for &s in row {
                let (mut sum, mut total) = (0.0, 0.0);
                for &n in slots[s].above.iter().chain(&slots[s].below) {
                    // A long edge should rather be straight than short.
                    let weight = match (slots[s].bend, slots[n].bend) {
                        (true, true) => 16.0,
                        (true, false) | (false, true) => 3.0,
                        (false, false) => 1.0,
                    };
                    sum += weight * x[n];
                    total += weight;
                }
                wishes.push(if total > 0.0 { sum / total } else { x[s] });
                weights.push(f64::max(total, 1e-3));
            }
            let offsets = offsets(slots, row);
            let shifted: Vec<f64> = wishes.iter().zip(&offsets).map(|(w, o)| w - o).collect();
            let fitted = isotonic(&shifted, &weights);
            for ((&s, y), offset) in row.iter().zip(fitted).zip(offsets) {
                x[s] = y + offset;
            }
        }
    }
    x
}

/// Distance of each slot's centre from the first one's, when the row is packed.
fn offsets(slots: &[Slot], row: &[usize]) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(row.len());
    let mut at = 0.0;
    for (k, &s) in row.iter().enumerate() {
        if k > 0 {
            at += (slots[row[k - 1]].width + slots[s].width) / 2.0 + SIDE_GAP;
        }
        offsets.push(at);
    }
    offsets
}

/// The non-decreasing sequence nearest to `wishes` in weighted squares (pool adjacent violators).
fn isotonic(wishes: &[f64], weights: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (&wish, &weight) in wishes.iter().zip(weights) {
        let mut pool = (wish, weight, 1);
        while let Some(&(mean, total, len)) = pools.last() {
            if mean <= pool.0 {
                break;
            }
            let sum = total + pool.1;
            pool = ((mean * total + pool.0 * pool.1) / sum, sum, len + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    pools
        .into_iter()
        .flat_map(|(mean, _, len)| std::iter::repeat_n(mean, len))
        .collect()
}

/// How far beside the centre of its source and of its target each edge starts and ends.
fn ports(chains: &[Chain], slots: &[Slot], x: &[f64]) -> Vec<(f64, f64)> {
    let first = |c: &Chain| c.through.first().copied().unwrap_or(c.to);
    let last = |c: &Chain| c.through.last().copied().unwrap_or(c.from);
    let mut ports = vec![(0.0, 0.0); chains.len()];
    for (node, slot) in slots.iter().enumerate() {
        let mut leaving: Vec<usize> = (0..chains.len())
            .filter(|&c| chains[c].from == node)
            .collect();
        leaving.sort_by(|&a, &b| x[first(&chains[a])].total_cmp(&x[first(&chains[b])]));
        for (k, &c) in leaving.iter().enumerate() {
            ports[c].0 = port(k, leaving.len(), slot.width);
        }
        let mut arriving: Vec<usize> = (0..chains.len())
            .filter(|&c| chains[c].to == node)
            .collect();
        arriving.sort_by(|&a, &b| x[last(&chains[a])].total_cmp(&x[last(&chains[b])]));
        for (k, &c) in arriving.iter().enumerate() {
            ports[c].1 = port(k, arriving.len(), slot.width);
        }
    }
    ports
}

fn port(k: usize, n: usize, width: f64) -> f64 {
    let gap = PORT_GAP.min((width - PADDING.1) / n as f64);
    (k as f64 - (n as f64 - 1.0) / 2.0) * gap
}

//! Figures as PNG.

use std::sync::{Arc, OnceLock};

use nasfw_framework::{Error, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb::Database};

/// Pixels of the picture per pixel of the SVG.
const SCALE: f32 = 2.0;

/// Draws an SVG document as a PNG on white ground, at twice its size. The fonts of the machine play no part, so that all
/// machines draw the same.
///
/// # Errors
/// [`Error::Invalid`] for a text that is no SVG, and one that is too large for a picture.
pub fn render(svg: &str) -> Result<Vec<u8>> {
    let invalid = |why: String| Error::Invalid {
        what: "figure".into(),
        why,
    };
    let options = usvg::Options {
        fontdb: fonts(),
        font_family: "DejaVu Sans".into(),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| invalid(e.to_string()))?;
    let size = tree.size();
    let (width, height) = (size.width() * SCALE, size.height() * SCALE);
    let mut picture = Pixmap::new(width.ceil() as u32, height.ceil() as u32).ok_or_else(|| {
        invalid(format!(
            "it is too large for a picture: {width} by {height}"
        ))
    })?;
    resvg::render(
        &tree,
        Transform::from_scale(SCALE, SCALE),
        &mut picture.as_mut(),
    );
    picture.encode_png().map_err(|e| invalid(e.to_string()))
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

//! What an SVG document is written as.

use std::path::Path;

use nasfw_framework::{Error, Result};

/// A format of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    Svg,
    /// On white ground, with a font of its own.
    Png,
    /// One page of its size.
    Pdf,
}

/// Pixels of a PNG per pixel of the SVG, and where a width on paper is asked for: 300 to an inch.
#[cfg(feature = "png")]
const SCALES: [f32; 2] = [2.0, 300.0 / 96.0];

impl Format {
    /// The format of a file by its ending.
    ///
    /// # Errors
    /// An ending that is none of them.
    pub fn of(file: &Path) -> Result<Self> {
        let ending = file.extension().unwrap_or_default().to_string_lossy();
        match ending.to_lowercase().as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            "pdf" => Ok(Self::Pdf),
            _ => Err(Error::Incompatible {
                what: format!("-o {}", file.display()),
                why: "figures are written as SVG, PNG or PDF".into(),
                help: "let the file's name end with `.svg`, `.png` or `.pdf`".into(),
            }),
        }
    }

    /// The bytes of a document in this format, so many millimetres wide if that is asked for.
    ///
    /// # Errors
    /// A picture that is too large; a program that was built without the feature `png`, for what needs it.
    pub fn bytes(self, svg: &str, millimetres: Option<f64>) -> Result<Vec<u8>> {
        let sized = millimetres.map(|width| in_millimetres(svg, width));
        let svg = sized.as_deref().unwrap_or(svg);
        match self {
            Self::Svg => Ok(svg.as_bytes().to_vec()),
            #[cfg(feature = "png")]
            Self::Png => {
                let scale = SCALES[usize::from(millimetres.is_some())];
                Ok(nasfw_pictures::png(svg, scale)?.bytes)
            }
            #[cfg(feature = "png")]
            Self::Pdf => nasfw_pictures::pdf(svg),
            #[cfg(not(feature = "png"))]
            Self::Png | Self::Pdf => Err(Error::Incompatible {
                what: "a picture as PNG or PDF".into(),
                why: "this program was built without its feature `png`".into(),
                help: "write an SVG: `-o FILE.svg`".into(),
            }),
        }
    }
}

/// The document with its width and height on paper; what is in it scales with them. The first attributes of these names
/// are the root's.
pub fn in_millimetres(svg: &str, width: f64) -> String {
    let value = |name: &str| {
        let start = svg.find(&format!(" {name}=\""))? + name.len() + 3;
        let end = start + svg[start..].find('"')?;
        svg[start..end].parse::<f64>().ok()
    };
    let (Some(w), Some(h)) = (value("width"), value("height")) else {
        return svg.to_owned();
    };
    svg.replacen(
        &format!(r#" width="{w}" height="{h}""#),
        &format!(r#" width="{width}mm" height="{:.2}mm""#, width * h / w),
        1,
    )
}

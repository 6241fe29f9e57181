//! Single image files, for networks that are trained.

use std::path::{Path, PathBuf};

use nasfw_framework::dataset::CenterCrop;
use nasfw_framework::{Error, Result};
use rayon::prelude::*;

use super::pixels::{read, show};
use super::view::{GREY, middle_view, square};

/// Image files as a network takes them: bytes, file after file, each channel × row × column. They are read, scaled and cut
/// out as the test images of `image-folder` are ([`Dataset::load_as`](nasfw_framework::dataset::Dataset::load_as)), on as
/// many threads as rayon has.
///
/// # Errors
/// Shapes that are neither square nor grey nor of three colours, and [`Error::Data`] with the name of a file that is
/// missing, truncated or no image.
pub fn pictures(files: &[PathBuf], channels: i64, crop: CenterCrop) -> Result<Vec<u8>> {
    let help = "`nasfw eval RUN` shows the run's own images to its network";
    let (size, resize) = square(channels, crop, ("files of pictures", help))?;
    let one = channels as usize * (size as usize).pow(2);
    let mut bytes = vec![0; files.len() * one];
    let each: Vec<Result<()>> = (bytes.par_chunks_mut(one))
        .zip(files)
        .map(|(out, file)| {
            let image = read(file).map_err(|problem| bad(file, problem))?;
            let view = middle_view(image.dimensions(), resize, size);
            show(&image, view, channels == GREY, out).map_err(|problem| bad(file, problem))
        })
        .collect();
    // Of several bad files the first one is named.
    each.into_iter().collect::<Result<()>>()?;
    Ok(bytes)
}

fn bad(file: &Path, problem: String) -> Error {
    Error::Data {
        path: file.to_owned(),
        problem,
        help: match file.is_dir() {
            true => "name the files in it: `nasfw predict RUN FOLDER/*`; `nasfw eval RUN --dataset image-folder --data-dir DIR` \
                     measures on a folder for each class"
                .into(),
            false => "name files of images that are whole: JPEG, PNG, WebP, BMP or TIFF".into(),
        },
    }
}

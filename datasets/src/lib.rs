//! First-party datasets: real ones in their standard file formats, a small real one inside the
//! binary, and a made-up one of any size.
//!
//! | name | images | from |
//! |---|---|---|
//! | `fashion-mnist-mini` | 5,000 + 1,000 of 1×28×28, 10 classes | the binary itself |
//! | `fashion-mnist` | 60,000 + 10,000 of 1×28×28, 10 classes | four IDX files |
//! | `cifar10` | 50,000 + 10,000 of 3×32×32, 10 classes | the binary version's batches |
//! | `cifar100` | 50,000 + 10,000 of 3×32×32, 100 classes | the binary version's two files |
//! | `imagenet16-120` | 151,700 + 6,000 of 3×16×16, 120 classes | eleven pickled batches |
//! | `imagenet` | 1,281,167 + 50,000, 1,000 classes | folders of image files |
//! | `image-folder` | your own | folders of image files |
//! | `arrays` | your own | one `.npz` file of NumPy |
//! | `synthetic` | any | a seed |

pub mod arrays;
pub mod cifar;
pub mod download;
pub mod fashion_mnist;
pub mod fashion_mnist_mini;
mod files;
pub mod folder;
pub mod idx;
pub mod imagenet16;
mod numpy;
mod pickle;
mod published;
mod subset;
pub mod synthetic;
#[cfg(test)]
mod test_pickles;

pub use arrays::Arrays;
pub use cifar::{Cifar10, Cifar100};
pub use fashion_mnist::FashionMnist;
pub use fashion_mnist_mini::FashionMnistMini;
pub use folder::{ImageFolder, ImageNet};
pub use imagenet16::ImageNet16;
pub use synthetic::Synthetic;

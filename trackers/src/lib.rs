//! First-party trackers: TensorBoard's event files, and runs on an MLflow server. One file a tracker.

mod mlflow;
mod tensorboard;

pub use mlflow::Mlflow;
pub use tensorboard::TensorBoard;

//! First-party trackers: TensorBoard's event files, and runs on an MLflow server. One file a tracker.

#[cfg(feature = "mlflow")]
mod mlflow;
#[cfg(feature = "tensorboard")]
mod tensorboard;

#[cfg(feature = "mlflow")]
pub use mlflow::Mlflow;
#[cfg(feature = "tensorboard")]
pub use tensorboard::TensorBoard;

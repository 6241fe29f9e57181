//! Values inside a network: whoever runs a forward pass may ask for them, and the network's layers tell them.
//!
//! A scope is open on one thread, where forward passes run, so that nobody else's passes are told. While none is open a
//! layer pays for one look at a flag. While one is, networks leave out fused kernels and computations in place, which
//! have no such values; results are the same but for rounding.

use std::cell::RefCell;
use std::mem;

use tch::Tensor;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What every ReLU takes, `[n, …]`.
    ReluInputs,
    /// What every candidate puts out that is computed, before its weight, drop path and offsets: `[n, channels, h, w]`.
    Candidates,
    /// What every convolution and linear layer of a network that is trained alone puts out, its bias included:
    /// `[n, channels, h, w]` or `[n, outputs]`.
    Layers,
    /// What every global average pooling of a network that is trained alone takes: `[n, channels, h, w]`.
    Features,
}

impl Wanted {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReluInputs => "inputs of ReLUs that it tells",
            Self::Candidates => "outputs of candidates that it tells",
            Self::Layers => "outputs of layers that it tells",
            Self::Features => "features before a pooling that it tells",
        }
    }
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The input of a ReLU.
    Relu {
        /// How many ReLUs of the architecture this one stands for. What several of them take is rectified once.
        times: i64,
    },
    /// The output of a candidate of the spec.
    Candidate {
        /// Number of the cell.
        cell: usize,
        /// Number of the group.
        group: usize,
        /// Number of the row in the group.
        row: usize,
        /// Number of the candidate in the row.
        column: usize,
    },
    /// The output of a convolution or linear layer.
    Layer {
        /// Its number among those of the network.
        number: usize,
    },
    /// The input of a global average pooling.
    Features,
}

/// A value that a network told.
#[derive(Debug)]
pub struct Value {
    /// Unique within a forward pass, and the same in every pass of the network.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// The value with its graph. Gradients with respect to it can be asked for: they are those of what goes on from
    /// this place, not of other readers of the same numbers.
    pub tensor: Tensor,
}

struct Scope {
    wanted: Wanted,
    values: Vec<Value>,
}

thread_local! {
    static OPEN: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Puts the scope around back, also after a panic.
struct Around(Option<Scope>);

impl Drop for Around {
    fn drop(&mut self) {
        let around = self.0.take();
        OPEN.with_borrow_mut(|open| *open = around);
    }
}

/// Does `run`, and gives what the forward passes in it told, in order, those of one pass after those of the other. A
/// scope within a scope has its values for itself.
pub fn values<T>(wanted: Wanted, run: impl FnOnce() -> T) -> (T, Vec<Value>) {
    let values = vec![];
    let scope = Scope { wanted, values };
    let _around = Around(OPEN.with_borrow_mut(|open| open.replace(scope)));
    let done = run();
    let told = OPEN.with_borrow_mut(|open| open.as_mut().map(|s| mem::take(&mut s.values)));
    (done, told.unwrap_or_default())
}

/// What is asked for on this thread, if anything is.
pub fn wanted() -> Option<Wanted> {
    OPEN.with_borrow(|open| open.as_ref().map(|scope| scope.wanted))
}

/// Whether anything is asked for: then every value must be made, and none in place.
pub fn is_on() -> bool {
    wanted().is_some()
}

/// Tells the input `x` of a ReLU, which stands for `times` of them. The layer goes on with what this gives.
pub fn relu_input(x: &Tensor, times: i64, name: impl FnOnce() -> String) -> Tensor {
    tell(Wanted::ReluInputs, x, || (name(), Place::Relu { times }))
}

/// Tells the output `x` of a candidate. The layer goes on with what this gives.
pub fn candidate(x: &Tensor, at: impl FnOnce() -> (String, Place)) -> Tensor {
    tell(Wanted::Candidates, x, at)
}

/// Tells the output `x` of a convolution or linear layer. The network goes on with what this gives.
pub fn layer(x: &Tensor, at: impl FnOnce() -> (String, Place)) -> Tensor {
    tell(Wanted::Layers, x, at)
}

/// Tells the input `x` of a global average pooling. The network goes on with what this gives.
pub fn features(x: &Tensor, name: impl FnOnce() -> String) -> Tensor {
    tell(Wanted::Features, x, || (name(), Place::Features))
}

fn tell(what: Wanted, x: &Tensor, at: impl FnOnce() -> (String, Place)) -> Tensor {
    if wanted() != Some(what) {
        return x.shallow_clone();
    }
    // A place in the graph of its own.
    let tensor = match x.requires_grad() {
        true => x.alias(),
        false => x.detach().set_requires_grad(true),
    };
    let (name, place) = at();
    let value = Value {
        name,
        place,
        tensor: tensor.shallow_clone(),
    };
    OPEN.with_borrow_mut(|open| {
        if let Some(scope) = open {
            scope.values.push(value);
        }
    });
    tensor
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use tch::Kind;

    fn pass(x: &Tensor) -> Tensor {
        let y = relu_input(x, 2, || "first".into()).relu();
        candidate(&y, || panic!("nobody asks for candidates")) * 3.0 + x
    }

    fn names(values: &[Value]) -> Vec<&str> {
        values.iter().map(|v| v.name.as_str()).collect()
    }

    #[test]
    fn gradients_are_those_of_what_goes_on_from_the_place() {
        let x = Tensor::from_slice(&[-1.0, 2.0]);
        for x in [x.copy(), x.set_requires_grad(true)] {
            let (y, told) = values(Wanted::ReluInputs, || pass(&x));
            assert_eq!(
                (names(&told), told[0].place),
                (vec!["first"], Place::Relu { times: 2 })
            );
            assert_eq!(told[0].tensor.detach(), x.detach());
            let slope =
                Tensor::run_backward(&[y.sum(Kind::Double)], &[&told[0].tensor], false, false);
            assert_eq!(slope[0], Tensor::from_slice(&[0.0, 3.0]));
        }
    }

    #[test]
    fn scopes_keep_to_themselves_and_to_their_thread_and_end_with_a_panic() {
        let x = Tensor::from_slice(&[1.0]);
        assert!(!is_on());
        let (inner, outer) = values(Wanted::ReluInputs, || {
            let _ = pass(&x);
            let ((), inner) = values(Wanted::Candidates, || {
                let _ = candidate(&x, || ("c".into(), Place::Relu { times: 1 }));
                assert!(std::thread::spawn(|| !is_on()).join().unwrap());
            });
            let _ = pass(&x);
            inner
        });
        assert_eq!(
            (names(&inner), names(&outer)),
            (vec!["c"], vec!["first", "first"])
        );
        let broken =
            std::panic::catch_unwind(|| values(Wanted::Candidates, || panic!("on purpose")));
        assert!(broken.is_err() && !is_on());
    }
}

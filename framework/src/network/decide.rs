//! Decisions in a network under construction: one description for the supernet of a space and for the network of each of
//! its architectures.

use super::builder::{NetworkBuilder, Value};
use super::decisions::{Decisions, refused, unknown};
use super::graph::{Mix, Op};
use super::mixed::Mixed;
use crate::arch::{ArchSpec, Choice};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::supernet::{BatchNormStats, OwnWeights, SupernetOptions};

impl NetworkBuilder {
    /// An empty network for all architectures of a space at once, and its images ([`NetworkBuilder::decide`]). Of
    /// `options` it keeps to `allowed`, `batch_norm`, `plain` and, where the description has
    /// [`NetworkBuilder::drop_path`], `drop_path`; `channels` and `cells` are the description's own business. Options
    /// that don't fit, and the others, come out of [`NetworkBuilder::finish_open`] as errors.
    pub fn open(spec: &ArchSpec, options: &SupernetOptions, task: Task) -> (Self, Value) {
        let (mut builder, images) = Self::new(task);
        let wrong = options.check(spec).err().or_else(|| unknown(options));
        let fits = wrong.is_none();
        builder.error = builder.error.or(wrong);
        builder.tracked = options.batch_norm == BatchNormStats::Running;
        if fits {
            builder.decisions = Decisions::Open(spec.clone(), options.clone());
        }
        (builder, images)
    }

    /// An empty network for one architecture of a space, and its images ([`NetworkBuilder::decide`]). A choice that does
    /// not fit comes out of [`NetworkBuilder::finish`] as an error.
    pub fn chosen(spec: &ArchSpec, choice: &Choice, task: Task) -> (Self, Value) {
        let (mut builder, images) = Self::new(task);
        match choice.check(spec) {
            Ok(()) => builder.decisions = Decisions::Made(spec.clone(), choice.clone()),
            Err(wrong) => builder.error = builder.error.or(Some(wrong)),
        }
        (builder, images)
    }

    /// The value of row `row` of group `group`, whose candidates `candidate` writes down, by their columns. All
    /// candidates have values of one shape; what they read, they take from around them.
    ///
    /// In a network for one architecture it is the sum of the kept candidates, and no others are written down. In one for
    /// all it is the sum of all candidates that exist, times their weights in the architecture, plus the row's offset;
    /// candidates that an architecture masks are not computed, nor what only they read. Of no candidates the sum is zero:
    /// then the first one is written down for its shape, and forgotten.
    ///
    /// Names of layers in a candidate begin with `name`, the candidate's own name and a dot, in both forms alike, so that
    /// weights can be carried over. Candidates may have decisions of their own, and rows may be decided several times
    /// under several names, as those of a cell that is repeated.
    pub fn decide(
        &mut self,
        name: &str,
        (group, row): (usize, usize),
        mut candidate: impl FnMut(&mut Self, usize) -> Value,
    ) -> Value {
        let Some((names, columns)) = self.decisions.row(group, row) else {
            self.refuse(format!(
                "decision `{name}` is row {row} of group {group}, and there is no such row"
            ));
            return self.images();
        };
        let mut within = |b: &mut Self, c: usize| {
            let outside = b.scope.len();
            b.scope += &format!("{name}.{}.", names[c]);
            let value = candidate(b, c);
            b.scope.truncate(outside);
            value
        };
        let cell = self.times_decided(group, row);
        let write = |&column: &usize| {
            let before = self.parameters().entries().count();
            let value = within(self, column);
            let stretches = self.parameters().stretches_from(before);
            self.own.push(OwnWeights {
                cell,
                group,
                row,
                column,
                stretches,
            });
            value
        };
        let values: Vec<Value> = columns.iter().map(write).collect();
        let (shape, flat) = match values.first() {
            Some(_) => (
                self.joined(name, &values, |a, b| a == b),
                self.is_flat(values[0]),
            ),
            None => self.shape_of(|b| within(b, 0)),
        };
        if self.decisions.are_open() {
            let mix = Mix {
                group,
                row,
                columns,
            };
            return self.push(Op::Mix(mix), &values, shape, flat);
        }
        match values.as_slice() {
            [] if flat => {
                self.refuse(format!("decision `{name}` keeps nothing, and has no image"));
                self.images()
            }
            [] => self.push(Op::Zeros, &[], shape, false),
            kept => self.add(kept),
        }
    }

    /// How often a row was decided so far.
    fn times_decided(&self, group: usize, row: usize) -> usize {
        let own = self
            .own
            .iter()
            .filter(|own| (own.group, own.row) == (group, row));
        own.map(|own| own.cell + 1).max().unwrap_or_default()
    }

    /// The supernet with these logits (`[n, classes]`) of a network for all architectures ([`NetworkBuilder::open`]).
    ///
    /// # Errors
    /// Those of [`NetworkBuilder::finish`]; options that don't fit the space ([`Error::Invalid`]), or that the supernet
    /// does not have ([`Error::Incompatible`]).
    pub fn finish_open(mut self, logits: Value) -> Result<Mixed> {
        let drops = self.steps.iter().any(|step| step.op == Op::DropPath);
        let Decisions::Open(spec, options) =
            std::mem::replace(&mut self.decisions, Decisions::Nothing)
        else {
            return Err(self.error.unwrap_or_else(|| Error::Invalid {
                what: "network".into(),
                why: "a supernet is finished of an architecture that is decided".into(),
            }));
        };
        if options.drop_path && !drops {
            let why = "and no candidate of this space has a path to drop";
            self.error = self.error.or_else(|| Some(refused("drop_path", why)));
        }
        let mut own = std::mem::take(&mut self.own);
        own.retain(|own| !own.stretches.is_empty());
        Ok(Mixed::new(self.finish(logits, None)?, spec, options, own))
    }
}

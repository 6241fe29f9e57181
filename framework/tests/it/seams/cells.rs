//! H27: the architecture's gradient cell by cell (Λ-DARTS).

use super::net::CELLS;
use super::*;

/// Gradients of cells sum to the ordinary one, also through the distribution, and each is the finite difference of that
/// cell's copy alone.
pub fn add_up(s: &mut Search, arch: &RelaxedArch, softmax: &IndependentSoftmax) -> Result<()> {
    let (theta, batch) = (s.theta().detach(), s.batch(Split::Val)?);
    let ordinary = s.loss(&theta, arch, &batch)?;
    let phi = s.phi();
    let whole = s.gradients(&ordinary, &[&phi])?.remove(0);

    let arch = softmax.sample(&s.phi(), &mut s.rng("a"))?;
    let split = s.in_cells(&arch)?;
    let copies: Vec<&Tensor> = split.cells.iter().flatten().flatten().collect();
    assert_eq!(copies.len(), CELLS);
    let loss = s.loss(&theta, &split, &batch)?;
    assert!(gap(&loss, &ordinary) < 1e-14);
    let of_cells = s.gradients(&loss, &copies)?;

    // Through the softmax, by hand: what arrives at φ is the sum's.
    let sum: Tensor = of_cells.iter().sum();
    let joined = (&arch.weights[0] * &sum).sum(Kind::Double);
    let through = s.gradients(&joined, &[&phi])?.remove(0);
    assert!(gap(&through, &whole) < 1e-13 && whole.abs().max().double_value(&[]) > 1e-6);

    for (k, gradient) in of_cells.iter().enumerate() {
        for i in 0..2 {
            let exact = gradient.view([-1]).double_value(&[i]);
            let difference = slope(copies[k], i, |moved| {
                let mut cells = split.detach();
                if let Some(cells) = &mut cells.cells {
                    cells[k] = vec![moved.shallow_clone()];
                }
                s.loss(&theta, &cells, &batch).unwrap().double_value(&[])
            });
            assert!(
                (exact - difference).abs() < 1e-8,
                "{k} {i}: {exact} {difference}"
            );
            assert!(exact.abs() > 1e-6);
        }
    }
    assert!(gap(&of_cells[0], &of_cells[1]) > 1e-6);
    Ok(())
}

/// Weights for cells of a supernet that knows of none are an error, and so is another number of cells.
pub fn are_refused(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let batch = s.batch(Split::Val)?;
    if s.supernet().cells() == 0 {
        assert!(matches!(s.in_cells(arch), Err(Error::HasNone { .. })));
    }
    let other = arch.in_cells(CELLS + 1);
    let message = s.loss(&s.theta(), &other, &batch).unwrap_err().to_string();
    assert!(message.contains("weights for 3 cells"), "{message}");
    assert!(s.evaluate(&other, Some(Split::Val), None).is_err());
    Ok(())
}

#[test]
fn gradients_of_cells_are_exact_and_sum_to_the_whole() {
    let relu = "space.name=fixture-relu";
    look("cells", &[relu]);
    look("cells", &[relu, "space.batch_norm=true", "space.noise=0.1"]);
    look("cells", &[relu, "trainer.micro_batch=2"]);
}

#[test]
fn weights_for_cells_that_are_not_there_are_refused() {
    look("no-cells", &["space.name=fixture-linear"]);
    look("no-cells", &["space.name=fixture-relu"]);
}

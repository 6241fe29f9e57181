//! Parameters and multiply-adds against published counts.

use nasfw_framework::network::NetworkOptions;

use super::*;
use crate::published;

fn sized(channels: i64, height: i64, classes: i64) -> Task {
    Task {
        channels,
        height,
        width: height,
        classes,
    }
}

#[test]
fn published_cells_have_their_published_sizes() {
    let (cifar, imagenet) = (registered("darts"), registered("darts-imagenet"));
    let options = NetworkOptions::default();
    let mut counted = 0;
    for cell in published::all().unwrap() {
        let genotype = cell.genotype().unwrap();
        for (space, task, known) in [
            (&cifar, sized(3, 32, 10), cell.cifar),
            (&imagenet, sized(3, 224, 1000), cell.imagenet),
        ] {
            let Some((params, macs)) = known else {
                continue;
            };
            let cost = space.network(&genotype, task, &options).unwrap().size();
            let found = (cost.params as u64, cost.macs as u64);
            assert_eq!(found, (params, macs), "{}", cell.name);
            counted += 1;
        }
    }
    assert!(counted >= 96, "only {counted} sizes are known");
}

#[test]
fn the_auxiliary_head_has_its_published_size() {
    let genotype = published::find("DARTS_V2")
        .unwrap()
        .unwrap()
        .genotype()
        .unwrap();
    let options = NetworkOptions {
        auxiliary: true,
        ..Default::default()
    };
    let network = registered("darts").network(&genotype, sized(3, 32, 10), &options);
    let cost = network.unwrap().size();
    assert_eq!((cost.params, cost.auxiliary_params), (3_349_342, 476_426));
    assert_eq!(cost.macs, 528_359_040);
    // ImageNet: 768 channels come in: 768·128 + 2·128, 128·768·4 without a batch norm, 768·1000 + 1000.
    let network = registered("darts-imagenet").network(&genotype, sized(3, 224, 1000), &options);
    let cost = network.unwrap().size();
    assert_eq!((cost.params, cost.auxiliary_params), (4_718_752, 1_260_776));
}

/// Every architecture of NAS-Bench-201 on its three datasets, with the counts of the published table.
#[test]
fn all_networks_of_nasbench201_have_their_published_sizes() {
    let Some(table) = crate::test_data::unpacked("nasbench201.csv.gz") else {
        return;
    };
    let table = String::from_utf8(table).unwrap();
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| columns.iter().position(|c| *c == name).unwrap();
    let known = ["params_c10", "params_c100", "params_in16", "macs_c10"].map(column);
    let ops = column("ops");
    let space = registered("nasbench201");
    let tasks = [sized(3, 32, 10), sized(3, 32, 100), sized(3, 16, 120)];
    let mut rows = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let digits: Vec<usize> = fields[ops].bytes().map(|b| (b - b'0') as usize).collect();
        let kept = digits.iter().map(|d| vec![*d]).collect();
        let genotype = space.genotype(&Choice::new(vec![kept]));
        let costs = tasks.map(|task| {
            let network = space.network(&genotype, task, &NetworkOptions::default());
            network.unwrap().size()
        });
        let found = [
            costs[0].params,
            costs[1].params,
            costs[2].params,
            // The table counts the additions of the classifier's bias, too.
            costs[0].macs + tasks[0].classes,
        ];
        assert_eq!(
            found.map(|n| n.to_string()),
            known.map(|c| fields[c].to_owned()),
            "{}",
            fields[ops]
        );
        rows += 1;
    }
    assert_eq!(rows, 15_625);
}

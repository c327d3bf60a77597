use proptest::prelude::*;

use super::super::tests::noise;
use super::super::{recall, top_k};
use super::*;

const METRICS: [Metric; 2] = [Metric::SquaredL2, Metric::Cosine];

/// Rows in clusters, as the patches of images are.
fn clusters(rows: usize, dim: usize, clusters: usize, seed: u64) -> Vec<f32> {
    let centres = noise(clusters * dim, 77);
    let mut rows = noise(rows * dim, seed);
    for (number, row) in rows.chunks_exact_mut(dim).enumerate() {
        let cluster = number * 31 % clusters;
        let centre = &centres[cluster * dim..(cluster + 1) * dim];
        row.iter_mut().zip(centre).for_each(|(value, centre)| *value = centre + 0.2 * *value);
    }
    rows
}

fn build(rows: &[f32], dim: usize, metric: Metric, cells: Option<usize>, isa: Isa) -> InvertedIndex {
    InvertedIndex::build(rows.to_vec(), dim, metric, InvertedOptions { cells, seed: 5 }, isa).unwrap()
}

/// The definition: the rows of the cells whose centres are nearest, measured one query at a time by the exact search.
fn reference(index: &InvertedIndex, query: &[f32], k: usize, probes: usize) -> Vec<(u32, f32)> {
    let (dim, metric, isa) = (index.dim(), index.metric(), index.isa());
    let cells = top_k(query, index.centres(), dim, probes, metric, isa).unwrap().indices;
    let places = cells.iter().flat_map(|cell| {
        let cell = *cell as usize;
        index.offsets()[cell]..index.offsets()[cell + 1]
    });
    let mut numbers: Vec<u32> = places.map(|place| index.order()[place as usize]).collect();
    numbers.sort_unstable();
    let rows: Vec<f32> = numbers.iter().flat_map(|number| index.row(*number as usize).unwrap()).copied().collect();
    let found = top_k(query, &rows, dim, k, metric, isa).unwrap();
    found.indices.iter().map(|place| numbers[*place as usize]).zip(found.distances).collect()
}

#[test]
fn as_many_probes_as_cells_are_the_exact_search() {
    // (queries, rows, dim, k, cells): cells of few rows and of more than a block, few and many queries.
    for (queries, rows, dim, k, cells) in
        [(1, 1, 1, 1, 1), (3, 40, 5, 40, 7), (130, 2500, 20, 9, 2), (50, 900, 33, 3, 60), (20, 100, 8, 5, 100)]
    {
        let (queries, rows) = (noise(queries * dim, 1), noise(rows * dim, 2));
        for isa in Isa::available() {
            for metric in METRICS {
                let exact = top_k(&queries, &rows, dim, k, metric, isa).unwrap();
                let index = build(&rows, dim, metric, Some(cells), isa);
                for probes in [index.cells(), cells + 100] {
                    assert_eq!(index.top_k(&queries, k, probes).unwrap(), exact, "{isa} {metric:?} {cells} cells");
                }
            }
        }
    }
}

#[test]
fn some_probes_are_the_exact_search_in_their_cells() {
    let dim = 12;
    let (queries, rows) = (clusters(200, dim, 9, 1), clusters(3000, dim, 9, 2));
    for isa in Isa::available() {
        for metric in METRICS {
            let index = build(&rows, dim, metric, Some(20), isa);
            for probes in [1, 3] {
                let found = index.top_k(&queries, 2, probes).unwrap();
                for (number, query) in queries.chunks_exact(dim).enumerate() {
                    let pairs =
                        found.indices[2 * number..].iter().copied().zip(found.distances[2 * number..].iter().copied());
                    let got: Vec<_> = pairs.take(2).collect();
                    assert_eq!(got, reference(&index, query, 2, probes), "{isa} {metric:?} query {number}");
                }
            }
        }
    }
}

#[test]
fn few_probes_find_most_neighbours_of_clustered_rows() {
    let dim = 16;
    let (queries, rows) = (clusters(300, dim, 40, 1), clusters(8000, dim, 40, 2));
    let exact = top_k(&queries, &rows, dim, 1, Metric::SquaredL2, Isa::Portable).unwrap();
    let index = build(&rows, dim, Metric::SquaredL2, None, Isa::Portable);
    assert!((200..=357).contains(&index.cells()), "{} cells", index.cells());
    let found = |probes| recall(&exact, &index.top_k(&queries, 1, probes).unwrap());
    // The clusters do not touch, but each is cut into several cells; 16 cells hold about two clusters.
    assert!(found(16) >= 0.95, "{}", found(16));
    assert!(found(1) < found(16));
    // Random cells would find probes/cells of them.
    assert!(found(1) >= 0.2, "{}", found(1));
}

#[test]
fn cells_are_where_the_nearest_centres_are() {
    let dim = 7;
    let rows = clusters(1000, dim, 6, 3);
    for metric in METRICS {
        let isa = Isa::Portable;
        let mut index = build(&rows[..700 * dim], dim, metric, Some(25), isa);
        index.append(&rows[700 * dim..]).unwrap();
        assert_eq!((index.len(), index.row(1000)), (1000, None));
        let nearest = top_k(&rows, index.centres(), dim, 1, metric, isa).unwrap().indices;
        for cell in 0..index.cells() {
            let places = index.offsets()[cell] as usize..index.offsets()[cell + 1] as usize;
            let numbers = &index.order()[places.clone()];
            assert!(numbers.is_sorted());
            for (number, stored) in numbers.iter().zip(index.rows()[places.start * dim..].chunks(dim)) {
                let number = *number as usize;
                assert_eq!(nearest[number] as usize, cell);
                assert_eq!(stored, &rows[number * dim..(number + 1) * dim]);
                assert_eq!(index.row(number), Some(stored));
            }
        }
    }
}

#[test]
fn appended_rows_are_found() {
    let dim = 10;
    let (rows, queries) = (noise(600 * dim, 4), noise(40 * dim, 5));
    for isa in Isa::available() {
        for metric in METRICS {
            let mut index = build(&rows[..100 * dim], dim, metric, Some(9), isa);
            for piece in rows[100 * dim..].chunks(170 * dim) {
                index.append(piece).unwrap();
            }
            let exact = top_k(&queries, &rows, dim, 4, metric, isa).unwrap();
            assert_eq!(index.top_k(&queries, 4, 9).unwrap(), exact, "{isa} {metric:?}");
            let before = index.clone().into_parts();
            let bad = [vec![0.0; dim], vec![f32::NAN; dim]].concat();
            assert_eq!(index.append(&bad), Err(NeighboursError::NotFinite { side: Side::Bank, row: 1 }));
            assert_eq!(index.into_parts(), before);
        }
    }
}

#[test]
fn small_cells_are_made_up_for_by_others() {
    let dim = 4;
    let (rows, queries) = (noise(300 * dim, 6), noise(30 * dim, 7));
    let index = build(&rows, dim, Metric::SquaredL2, Some(100), Isa::Portable);
    for k in [1, 10, 299, 300] {
        let found = index.top_k(&queries, k, 1).unwrap();
        let exact = top_k(&queries, &rows, dim, k, Metric::SquaredL2, Isa::Portable).unwrap();
        assert_eq!(found.indices.len(), 30 * k);
        for (found, exact) in found.indices.chunks(k).zip(exact.indices.chunks(k)) {
            let mut distinct = found.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), k);
            if k == 300 {
                assert_eq!(found, exact);
            }
        }
    }
}

#[test]
fn equal_rows_share_a_cell_and_rows_of_length_zero_are_found() {
    let dim = 3;
    let rows = [[1.0, 2.0, 3.0].repeat(50), vec![0.0; 3 * 20], [-3.0, 0.5, 0.0].repeat(30)].concat();
    for metric in METRICS {
        let index = build(&rows, dim, metric, Some(30), Isa::Portable);
        assert!(index.cells() <= 3, "{} cells", index.cells());
        let found = index.top_k(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0], 1, 1).unwrap();
        assert_eq!((&*found.indices, &*found.distances), (&[50, 0][..], &[0.0, 0.0][..]), "{metric:?}");
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let dim = 24;
    let (queries, rows) = (clusters(400, dim, 11, 8), clusters(5000, dim, 11, 9));
    for isa in Isa::available() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let index = build(&rows, dim, Metric::SquaredL2, None, isa);
                let found = index.top_k(&queries, 3, 4).unwrap();
                (index.into_parts(), found)
            })
        };
        let (parts, one) = on(1);
        for threads in [2, 5] {
            assert!(on(threads) == (parts.clone(), one.clone()), "{isa} on {threads} threads");
        }
        let index = InvertedIndex::from_parts(parts, isa).unwrap();
        let alone = index.top_k(&queries[17 * dim..18 * dim], 3, 4).unwrap();
        assert_eq!((&*alone.indices, &*alone.distances), (&one.indices[51..54], &one.distances[51..54]), "{isa}");
    }
}

#[test]
fn parts_go_there_and_back_and_are_checked() {
    let (dim, isa) = (5, Isa::Portable);
    let rows = noise(80 * dim, 10);
    let index = build(&rows, dim, Metric::Cosine, Some(6), isa);
    let parts = index.clone().into_parts();
    let again = InvertedIndex::from_parts(parts.clone(), isa).unwrap();
    assert_eq!(again.top_k(&rows, 3, 2), index.top_k(&rows, 3, 2));
    assert_eq!(again.into_parts(), parts);

    let refused = |change: &dyn Fn(&mut InvertedParts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        InvertedIndex::from_parts(parts, isa).unwrap_err().to_string()
    };
    let last = parts.offsets.len() - 1;
    for (change, what) in [
        (&(|parts: &mut InvertedParts| parts.order[3] = parts.order[4]) as &dyn Fn(&mut InvertedParts), "order"),
        (&|parts| parts.order[0] = 80, "order"),
        (&|parts| parts.order.truncate(79), "order"),
        (&|parts| parts.offsets[0] = 1, "offsets"),
        (&|parts| parts.offsets[1] = 81, "offsets"),
        (&|parts| parts.offsets[last] = 79, "offsets"),
        (&|parts| parts.offsets.push(80), "one offset more"),
        (&|parts| (parts.centres.clear(), parts.offsets.truncate(1)).1, "there must be a cell"),
        (&|parts| parts.rows[7] = f32::NAN, "row 1 of the bank"),
        (&|parts| parts.rows.truncate(399), "multiple of the dimension 5"),
    ] {
        let message = refused(change);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn wrong_input_is_an_error_that_names_it() {
    let isa = Isa::Portable;
    let build = |rows: &[f32], dim, cells| {
        InvertedIndex::build(rows.to_vec(), dim, Metric::SquaredL2, InvertedOptions { cells, seed: 0 }, isa)
    };
    let error = |rows: &[f32], dim, cells| build(rows, dim, cells).unwrap_err();
    assert_eq!(error(&[], 2, None), NeighboursError::Cells { cells: 1, rows: 0 });
    assert_eq!(error(&[0.0; 4], 2, Some(0)), NeighboursError::Cells { cells: 0, rows: 2 });
    assert_eq!(error(&[0.0; 4], 2, Some(3)), NeighboursError::Cells { cells: 3, rows: 2 });
    assert_eq!(error(&[0.0; 4], 0, None), NeighboursError::NoColumns);
    assert_eq!(error(&[0.0, 0.0, f32::NAN], 1, None), NeighboursError::NotFinite { side: Side::Bank, row: 2 });
    let index = build(&[0.0; 4], 2, None).unwrap();
    assert_eq!(index.top_k(&[0.0; 2], 1, 0), Err(NeighboursError::NoProbes));
    assert_eq!(index.top_k(&[0.0; 2], 3, 1), Err(NeighboursError::Count { k: 3, rows: 2 }));
    assert_eq!(index.top_k(&[0.0; 2], 0, 1), Err(NeighboursError::Count { k: 0, rows: 2 }));
    assert_eq!(index.top_k(&[0.0; 3], 1, 1), Err(NeighboursError::Ragged { side: Side::Queries, len: 3, dim: 2 }));
    assert!(index.top_k(&[], 1, 1).unwrap().indices.is_empty());
}

#[test]
fn recall_counts_neighbours_that_are_as_near() {
    let neighbours =
        |k, distances: &[f32]| Neighbours { k, indices: vec![0; distances.len()], distances: distances.to_vec() };
    let exact = neighbours(2, &[1.0, 2.0, 0.0, 0.0]);
    assert_eq!(recall(&exact, &exact), 1.0);
    assert_eq!(recall(&exact, &neighbours(2, &[2.0, 2.0, 0.0, 3.0])), 0.75);
    assert_eq!(recall(&exact, &neighbours(1, &[1.0, 0.0])), 0.5);
    assert_eq!(recall(&exact, &neighbours(2, &[])), 0.0);
    assert_eq!(recall(&neighbours(1, &[]), &exact), 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn any_index_is_exact_with_all_probes_and_never_short(
        queries in 1usize..40, rows in 1usize..150, dim in 1usize..20, k in 1usize..10, cells in 1usize..40,
        added in 0usize..30, coarse in any::<bool>(), seed in any::<u64>(), cosine in any::<bool>(),
    ) {
        // Coarse values make equal rows, and with them ties and empty cells.
        let value = |value: f32| if coarse { value.round() } else { value };
        let queries: Vec<f32> = noise(queries * dim, seed).into_iter().map(value).collect();
        let all: Vec<f32> = noise((rows + added) * dim, seed ^ 1).into_iter().map(value).collect();
        let (metric, k) = (if cosine { Metric::Cosine } else { Metric::SquaredL2 }, k.min(rows));
        for isa in Isa::available() {
            let mut index = build(&all[..rows * dim], dim, metric, Some(cells.min(rows)), isa);
            index.append(&all[rows * dim..]).unwrap();
            let exact = top_k(&queries, &all, dim, k, metric, isa).unwrap();
            prop_assert_eq!(&index.top_k(&queries, k, cells).unwrap(), &exact);
            let some = index.top_k(&queries, k, 1).unwrap();
            prop_assert_eq!(some.indices.len(), exact.indices.len());
            prop_assert!(recall(&exact, &some) <= 1.0);
            prop_assert!(exact.distances.iter().zip(&some.distances).all(|(exact, some)| exact <= some));
        }
    }
}

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::isa::Isa;
use crate::neighbours::tests::noise;
use crate::neighbours::{Bank, Side, top_k};
use crate::simd::Token;

/// Rows as a search takes them.
fn rows(data: &[f32], dim: usize, metric: Metric) -> Rows<'_> {
    Rows::new(Cow::Borrowed(data), dim, metric, Side::Bank).unwrap()
}

/// Searches through rounded rows, however few; returns the neighbours and the number of queries that did not need the
/// product in f32.
fn filtered(
    (queries, bank): (&[f32], &[f32]),
    dim: usize,
    k: usize,
    metric: Metric,
    (isa, bytes): (Isa, ByteToken),
) -> (Vec<Vec<Near>>, usize) {
    let token = Token::new(isa).unwrap();
    let (queries, bank) = (rows(queries, dim, metric), rows(bank, dim, metric));
    let quantized = Quantized::new(bank.view(), token, bytes);
    let search =
        Search { queries: queries.view(), bank: bank.view(), numbers: None, k, metric, token, lanes: isa.lanes() };
    let filter = Filter { search: &search, bank: &quantized, bytes };
    (filter.run(), filter.sift_all().iter().flatten().count())
}

/// The definition: all rows measured directly, sorted.
fn measured((queries, bank): (&[f32], &[f32]), dim: usize, k: usize, metric: Metric, isa: Isa) -> Vec<Vec<Near>> {
    let (queries, bank) = (rows(queries, dim, metric), rows(bank, dim, metric));
    let token = Token::new(isa).unwrap();
    let (queries, bank, lanes) = (queries.view(), bank.view(), isa.lanes());
    let search = Search { queries, bank, numbers: None, k, metric, token, lanes };
    let nearest = |query: usize| {
        let mut all: Vec<Near> = (0..bank.len()).map(|row| search.near(row, search.distance(query, row))).collect();
        all.sort();
        all.truncate(k);
        all
    };
    (0..queries.len()).map(nearest).collect()
}

/// Distances as bits.
fn bits(lists: Vec<Vec<Near>>) -> Vec<Vec<(u32, u32)>> {
    lists.into_iter().map(|list| list.iter().map(|near| (near.index, near.distance.to_bits())).collect()).collect()
}

/// Difficult rows.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    /// Whole numbers, with many ties.
    Coarse,
    /// Many copies of each row.
    Repeated,
    /// All numbers of a row are the same.
    Constant,
    /// All rows are the same.
    OneRow,
    /// A column that is a thousand times as large.
    OutlierColumn,
    /// A row that is far from the others.
    FarRow,
    /// Queries far from all rows.
    FarQueries,
    /// Every number multiplied by this factor.
    Scaled(f32),
}

const KINDS: [Kind; 13] = [
    Kind::Plain,
    Kind::Coarse,
    Kind::Repeated,
    Kind::Constant,
    Kind::OneRow,
    Kind::OutlierColumn,
    Kind::FarRow,
    Kind::FarQueries,
    Kind::Scaled(1e-18),
    Kind::Scaled(1e-22),
    Kind::Scaled(1e-38),
    Kind::Scaled(1e-41),
    Kind::Scaled(5e16),
];

/// Queries and bank.
fn data(kind: Kind, queries: usize, rows: usize, dim: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let (mut query_rows, mut bank) = (noise(queries * dim, seed), noise(rows * dim, !seed));
    for (number, row) in query_rows.chunks_mut(dim).chain(bank.chunks_mut(dim)).enumerate() {
        let first = row[0];
        for (column, value) in row.iter_mut().enumerate() {
            *value = match kind {
                Kind::Plain | Kind::Repeated | Kind::FarRow => *value,
                Kind::Coarse => (*value * 2.0).round(),
                Kind::Constant => first,
                Kind::OneRow => column as f32,
                Kind::OutlierColumn if column == dim / 2 => 1000.0 * *value,
                Kind::OutlierColumn => *value,
                Kind::FarQueries if number < queries => *value + 100.0,
                Kind::FarQueries => *value,
                Kind::Scaled(scale) => *value * scale,
            };
        }
    }
    match kind {
        Kind::Repeated => {
            for row in 1..rows {
                bank.copy_within((row % 5).min(rows - 1) * dim..((row % 5).min(rows - 1) + 1) * dim, row * dim);
            }
        }
        Kind::FarRow => bank[rows / 2 * dim..(rows / 2 + 1) * dim].iter_mut().for_each(|value| *value *= 1e6),
        _ => {}
    }
    (query_rows, bank)
}

fn check(kind: Kind, queries: usize, rows: usize, dim: usize, k: usize, metric: Metric, seed: u64) {
    let (queries, bank) = data(kind, queries, rows, dim, seed);
    for (isa, bytes) in Token::every_bytes() {
        let (found, _) = filtered((&queries, &bank), dim, k, metric, (isa, bytes));
        let want = measured((&queries, &bank), dim, k, metric, isa);
        assert_eq!(bits(found), bits(want), "{isa} {kind:?} {metric:?}, {rows} rows of {dim}, k = {k}, seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn what_is_found_is_what_measuring_every_row_finds(
        kind in 0..KINDS.len(), queries in 17usize..60, rows in 1usize..2600, dim in 1usize..300, k in 1usize..65,
        cosine in any::<bool>(), seed in any::<u64>(),
    ) {
        let metric = if cosine { Metric::Cosine } else { Metric::SquaredL2 };
        check(KINDS[kind], queries, rows, dim, k.min(rows), metric, seed);
    }
}

#[test]
fn every_kind_of_rows_is_searched_exactly() {
    for kind in KINDS {
        for metric in [Metric::SquaredL2, Metric::Cosine] {
            check(kind, 40, 2500, 40, 3, metric, 7);
        }
    }
}

#[test]
fn rounded_rows_suffice_for_plain_data_and_not_where_a_column_hides_the_others() {
    let (queries, dim) = (60, 64);
    for (isa, bytes) in Token::every_bytes() {
        let sifted = |kind| {
            let (queries, bank) = data(kind, queries, 4000, dim, 3);
            filtered((&queries, &bank), dim, 1, Metric::SquaredL2, (isa, bytes)).1
        };
        assert_eq!(sifted(Kind::Plain), queries, "{isa}");
        assert_eq!(sifted(Kind::FarRow), queries, "{isa}");
        assert_eq!(sifted(Kind::OneRow), 0, "{isa}: every row is as near as any");
        // The column alone decides which rows are near, unless it is constant.
        let (mut queries, mut bank) = data(Kind::Plain, queries, 4000, dim, 3);
        for row in queries.chunks_mut(dim).chain(bank.chunks_mut(dim)) {
            row[9] = if row[0] < 0.0 { -1e4 } else { 1e4 };
        }
        let (found, sifted) = filtered((&queries, &bank), dim, 1, Metric::SquaredL2, (isa, bytes));
        assert_eq!(sifted, 0, "{isa}");
        assert_eq!(bits(found), bits(measured((&queries, &bank), dim, 1, Metric::SquaredL2, isa)));
    }
}

#[test]
fn a_near_row_that_was_rounded_the_other_way_is_found() {
    let (dim, count) = (65, 2400);
    let row = |value: f32| std::iter::once(127.0).chain(std::iter::repeat_n(value, dim - 1));
    // A third of the rows is 0, and so is the centre: steps are 1, and 0.49 and 0.51 become 0 and 1, the largest
    // possible difference.
    let (near, farther) = (701, 1901);
    let rows = (0..count).flat_map(|number| {
        let far = 137.0 + 0.5 * number as f32;
        let other = |first: f32| std::iter::once(first).chain(std::iter::repeat_n(0.0, dim - 1)).collect::<Vec<_>>();
        match number % 3 {
            _ if number == near => row(0.51).collect(),
            _ if number == farther => row(0.45).collect(),
            0 => other(0.0),
            1 => other(-far),
            _ => other(far),
        }
    });
    let (queries, bank): (Vec<f32>, Vec<f32>) = ((0..20).flat_map(|_| row(0.49)).collect(), rows.collect());
    for sign in [1.0, -1.0] {
        let [queries, bank] =
            [&queries, &bank].map(|values| values.iter().map(|value| sign * value).collect::<Vec<_>>());
        for (isa, bytes) in Token::every_bytes() {
            let (found, sifted) = filtered((&queries, &bank), dim, 1, Metric::SquaredL2, (isa, bytes));
            assert_eq!(sifted, 20, "{isa}");
            assert!(found.iter().all(|list| list[0].index == near as u32), "{isa}: {found:?}");
        }
    }
}

#[test]
fn hopeless_queries_do_not_disturb_those_after_them() {
    let (dim, k, metric) = (64, 4, Metric::SquaredL2);
    let (mut queries, bank) = data(Kind::Plain, 300, 3000, dim, 5);
    // Nearly equally far from all rows: rounding hides the difference.
    queries[..120 * dim].iter_mut().for_each(|value| *value += 1000.0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (isa, bytes) in Token::every_bytes() {
        let (found, sifted) = pool.install(|| filtered((&queries, &bank), dim, k, metric, (isa, bytes)));
        assert!((100..=180).contains(&sifted), "{isa}: {sifted}");
        assert_eq!(bits(found), bits(measured((&queries, &bank), dim, k, metric, isa)), "{isa}");
    }
}

#[test]
fn what_is_worthwhile_and_what_is_hopeless() {
    // (queries, rows, dim, k, whether the bank is rounded)
    for (queries, rows, dim, k, is_rounded, want) in [
        (784, 25_000, 152, 1, false, true),
        (256, 2048, 16, 64, false, true),
        (255, 2048, 16, 64, false, false),
        (17, 2048, 16, 64, true, true),
        (784, 2047, 152, 1, true, false),
        (784, 25_000, 15, 1, true, false),
        (784, 25_000, MAX_DIM, 1, false, true),
        (784, 25_000, MAX_DIM + 1, 1, false, false),
        (784, 25_000, 152, 65, true, false),
    ] {
        let got = is_worthwhile(queries, rows, dim, k, is_rounded);
        assert_eq!(got, want, "{queries} x {rows} x {dim}, k = {k}, {is_rounded}");
    }
    // (measured, queries, compared, k)
    for (measured, queries, compared, k, want) in [
        (0, 98, 1024, 1, false),
        (98 * (4 + 64 + 32), 98, 1024, 1, false),
        (98 * (4 + 64 + 32) + 1, 98, 1024, 1, true),
        (98 * (4 + 64 + 32) + 1, 98, 2048, 1, false),
        (98 * (4 + 64 + 32) + 1, 98, 1024, 2, false),
    ] {
        let got = is_hopeless(measured, queries, compared, k);
        assert_eq!(got, want, "{measured} of {queries} x {compared}, k = {k}");
    }
}

#[test]
fn neither_threads_nor_company_nor_appending_change_a_bit() {
    let (dim, k, rows) = (40, 5, 5000);
    let (queries, bank) = data(Kind::Plain, 300, rows, dim, 11);
    for isa in Isa::available() {
        for metric in [Metric::SquaredL2, Metric::Cosine] {
            let on = |threads: usize, bank: &Bank<'_>| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| bank.top_k(&queries, k).unwrap())
            };
            let whole = Bank::new(&*bank, dim, metric, isa).unwrap();
            let found = on(1, &whole);
            for threads in [2, 3, 16] {
                assert_eq!(on(threads, &whole), found, "{isa} {metric:?} on {threads} threads");
            }
            let mut grown = Bank::new(&bank[..3000 * dim], dim, metric, isa).unwrap();
            on(2, &grown);
            grown.append(&bank[3000 * dim..]).unwrap();
            assert_eq!(on(2, &grown), found, "{isa} {metric:?}");
            let alone = top_k(&queries[17 * dim..18 * dim], &bank, dim, k, metric, isa).unwrap();
            assert_eq!(alone.indices, found.indices[17 * k..18 * k], "{isa} {metric:?}");
            assert_eq!(alone.distances, found.distances[17 * k..18 * k], "{isa} {metric:?}");
        }
    }
}

// A custom scorer for rows of numbers: the distance of a row from the median row.
//
// `cargo run --release -p nomaly --example own_scorer`. In the library such a scorer is one file of
// `crates/nomaly-scorers/src` and a line in the registry, from which the command line, lists and schemas are derived.

use ndarray::{ArrayView2, Axis, array};
use nomaly::scorers::{Scorer, ScorerError, ScorerParams, State, Watch};
use nomaly::settings::{Assignments, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of the scorer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct MedianParams {
    /// The power that differences are raised to.
    #[schemars(extend("minimum" = 1))]
    power: u32,
}

impl Default for MedianParams {
    fn default() -> Self {
        Self { power: 1 }
    }
}

impl Settings for MedianParams {}

impl ScorerParams for MedianParams {
    const NAME: &'static str = "median-distance";
    const SUMMARY: &'static str = "sum of the differences from the median row";
    type Fitted = MedianDistance;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<MedianDistance, ScorerError> {
        let median = |column: ndarray::ArrayView1<'_, f32>| {
            let mut values = column.to_vec();
            values.sort_unstable_by(f32::total_cmp);
            values[values.len() / 2]
        };
        Ok(MedianDistance { power: self.power, median: rows.axis_iter(Axis(1)).map(median).collect() })
    }

    fn restore(state: &State) -> Result<MedianDistance, ScorerError> {
        // Files are untrusted: a scorer of the library checks every value here.
        serde_json::from_value(state.config.clone())
            .map_err(|error| ScorerError::Numerical { what: "the stored median", reason: error.to_string() })
    }
}

/// The fitted scorer.
#[derive(Debug, Serialize, Deserialize)]
struct MedianDistance {
    power: u32,
    median: Vec<f32>,
}

impl Scorer for MedianDistance {
    fn dim(&self) -> usize {
        self.median.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let distance = |row: ndarray::ArrayView1<'_, f32>| {
            let differences = row.iter().zip(&self.median).map(|(value, median)| f64::from((value - median).abs()));
            differences.map(|difference| difference.powi(self.power as i32)).sum()
        };
        Ok(rows.outer_iter().map(distance).collect())
    }

    fn state(&self) -> State {
        let config = serde_json::to_value(self).unwrap_or_default();
        State { kind: MedianParams::NAME.to_owned(), config, tensors: std::collections::BTreeMap::new() }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let normal = array![[1.0f32, 2.0], [1.2, 2.1], [0.9, 1.7], [1.1, 2.4], [0.8, 2.2]];
    let params: MedianParams = Assignments::parse(&["power=2"])?.read()?;
    let scorer = params.fit(normal.view(), Watch::none())?;
    let scores = scorer.score(array![[1.0f32, 2.0], [5.0, -3.0]].view())?;
    println!("near {:.3}, far {:.3}", scores[0], scores[1]);
    let again = MedianParams::restore(&scorer.state())?;
    assert_eq!(again.score(array![[5.0f32, -3.0]].view())?[0], scores[1]);
    println!("{}", Assignments::parse(&["power=0"])?.read::<MedianParams>().unwrap_err());
    Ok(())
}

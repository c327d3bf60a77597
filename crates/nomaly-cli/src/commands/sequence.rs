//! Scores as one sequence, monitored by a control chart.

use nomaly::scorers::{ControlChart, Monitor, Reading};
use nomaly::wire::ChartRecord;
use nomaly::{Calibration, DetectorError};

use crate::args::SequenceArgs;
use crate::console::Console;
use crate::output::{counted, significant};

/// The requested chart, calibrated on held-out scores of good `noun`s; dependent scores are calibrated by groups, in
/// order.
pub(super) fn chart(
    args: &SequenceArgs,
    calibration: &Calibration,
    noun: &str,
    console: &Console,
) -> anyhow::Result<Option<ControlChart>> {
    let Some(options) = args.chart() else { return Ok(None) };
    let chart = match calibration.groups() {
        None => ControlChart::calibrate(calibration.held_out(), &options),
        Some(groups) => ControlChart::calibrate_groups(calibration.in_order(), groups, &options),
    }
    .map_err(DetectorError::from)?;
    console.detail(format_args!(
        "{} chart: alarm above {} standard deviations, for {:.0} good {noun}s until a false alarm",
        chart.kind().name(),
        significant(chart.limit(), 4),
        chart.arl0()
    ));
    Ok(Some(chart))
}

/// Items as one sequence.
pub(super) struct MonitoredSequence<'a> {
    chart: &'a ControlChart,
    monitor: Monitor<'a>,
    noun: &'static str,
    alarms: usize,
    /// The number, from 1, and the name of the item with the first alarm.
    first: Option<(usize, String)>,
}

impl<'a> MonitoredSequence<'a> {
    /// A new sequence of `noun`s.
    pub(super) fn new(chart: &'a ControlChart, noun: &'static str) -> Self {
        Self { chart, monitor: chart.monitor(), noun, alarms: 0, first: None }
    }

    /// Adds the next item, with this number from 1; an item without a score does not change the chart.
    pub(super) fn push(&mut self, number: usize, id: &str, score: Option<f64>) -> ChartRecord {
        let Some(score) = score else { return ChartRecord { statistic: None, alarm: None } };
        let Reading { statistic, alarm } = self.monitor.push(score);
        if alarm {
            self.alarms += 1;
            self.first.get_or_insert_with(|| (number, id.to_owned()));
        }
        ChartRecord { statistic: Some(statistic), alarm: Some(alarm) }
    }

    /// Whether the chart has raised an alarm.
    pub(super) fn alarmed(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn describe(&self) -> String {
        let (name, noun) = (self.chart.kind().name(), self.noun);
        match &self.first {
            None => format!("{name} chart: no alarm"),
            Some((number, id)) => {
                format!("{name} chart: {}, the first at {noun} {number} ({id})", counted(self.alarms, "alarm"))
            }
        }
    }
}

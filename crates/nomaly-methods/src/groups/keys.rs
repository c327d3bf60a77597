//! Grouping rules.

use std::fmt;
use std::str::FromStr;

use nomaly_data::Sample;
use regex_lite::Regex;

use super::partition::{GroupInfo, Groups};
use super::time::{GroupFacts, TimeSource, Times, times};
use crate::MethodError;

/// The rule that groups images.
#[derive(Clone, Debug, Default)]
pub enum GroupBy {
    /// Near-copies and runs of similar images in file order, found in their features.
    #[default]
    Auto,
    /// No groups: all images are independent.
    None,
    /// Images of the same folder.
    Folder,
    /// Images whose [id](Sample::id) gives the same match of a regular expression: its first capture group, or the
    /// whole match.
    Pattern(Regex),
    /// Images taken at most this many seconds apart.
    Gap(f64),
}

impl GroupBy {
    /// The values that [`from_str`](Self::from_str) accepts, in words.
    pub const ALLOWED: &str = "`auto`, `none`, `folder`, `gap=SECONDS`, or a regular expression for file names";

    /// The facts about a sample that the rule uses.
    pub fn facts(&self, sample: &Sample) -> GroupFacts {
        let times = matches!(self, Self::Gap(_)).then(|| Times::of(sample));
        GroupFacts { id: sample.id.clone(), times }
    }

    /// The groups of samples; `None` for [`Auto`](Self::Auto), which needs their features.
    ///
    /// # Errors
    /// As [`by_facts`](Self::by_facts).
    pub fn by_name(&self, samples: &[&Sample]) -> Result<Option<(Groups, GroupInfo)>, MethodError> {
        let facts: Vec<GroupFacts> = samples.iter().map(|sample| self.facts(sample)).collect();
        self.by_facts(&facts.iter().collect::<Vec<_>>())
    }

    /// The groups of samples with these [facts](Self::facts); `None` for [`Auto`](Self::Auto).
    ///
    /// # Errors
    /// A sample that the pattern does not match, or whose time is unknown.
    pub fn by_facts(&self, samples: &[&GroupFacts]) -> Result<Option<(Groups, GroupInfo)>, MethodError> {
        let (groups, how) = match self {
            Self::Auto => return Ok(None),
            Self::None => (Groups::singletons(samples.len()), String::new()),
            Self::Folder => {
                let folder =
                    |sample: &&GroupFacts| sample.id.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                (Groups::of_keys(samples.iter().map(folder)), "by folder".to_owned())
            }
            Self::Pattern(pattern) => {
                let keys = samples.iter().map(|sample| key(pattern, sample)).collect::<Result<Vec<_>, _>>()?;
                (Groups::of_keys(keys), format!("by `{pattern}` in their names"))
            }
            Self::Gap(seconds) => {
                let (times, source) = times(samples)?;
                let source = match source {
                    TimeSource::Exif => "when they were taken (EXIF)",
                    TimeSource::Modified => "when their files were last changed",
                };
                (by_gaps(&times, *seconds), format!("by pauses of more than {seconds} s between {source}"))
            }
        };
        let how = (!groups.is_trivial()).then_some(how);
        let info = GroupInfo { by: self.to_string(), count: groups.count(), how };
        Ok(Some((groups, info)))
    }
}

/// The part of a sample's name that the pattern matches.
fn key<'a>(pattern: &Regex, sample: &'a GroupFacts) -> Result<&'a str, MethodError> {
    let found = pattern.captures(&sample.id).and_then(|captures| captures.get(1).or(captures.get(0)));
    found.map(|found| found.as_str()).ok_or_else(|| {
        let allowed = format!("{}; as a pattern it does not match `{}`", GroupBy::ALLOWED, sample.id);
        MethodError::setting("group-by", pattern.as_str(), &allowed)
    })
}

/// Groups of items with gaps of at most `seconds` between consecutive times.
fn by_gaps(times: &[f64], seconds: f64) -> Groups {
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
    let mut stretch = vec![0usize; times.len()];
    for pair in order.windows(2) {
        stretch[pair[1]] = stretch[pair[0]] + usize::from(times[pair[1]] - times[pair[0]] > seconds);
    }
    Groups::of_keys(stretch)
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Folder => f.write_str("folder"),
            Self::Pattern(pattern) => f.write_str(pattern.as_str()),
            Self::Gap(seconds) => write!(f, "gap={seconds}"),
        }
    }
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err(Self::ALLOWED.to_owned()),
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "folder" => Ok(Self::Folder),
            _ => match text.strip_prefix("gap=") {
                Some(seconds) => match seconds.parse::<f64>() {
                    Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Ok(Self::Gap(seconds)),
                    _ => Err("a number of seconds from 0 follows `gap=`".to_owned()),
                },
                None => Regex::new(text).map(Self::Pattern).map_err(|error| format!("{}: {error}", Self::ALLOWED)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nomaly_data::{ImageSource, Label};

    use super::*;

    fn samples(ids: &[&str]) -> Vec<Sample> {
        let image = Arc::new(image::RgbImage::new(1, 1));
        let sample = |id: &&str| Sample {
            id: (*id).to_owned(),
            source: ImageSource::Memory(image.clone()),
            label: Label::Normal,
            kind: "good".to_owned(),
            mask: None,
        };
        ids.iter().map(sample).collect()
    }

    fn of(by: &str, ids: &[&str]) -> Result<(Vec<u32>, GroupInfo), MethodError> {
        let samples = samples(ids);
        let found = by.parse::<GroupBy>().unwrap().by_name(&samples.iter().collect::<Vec<_>>())?;
        let (groups, info) = found.unwrap();
        assert_eq!((info.by.as_str(), info.count, info.how.is_none()), (by, groups.count(), groups.is_trivial()));
        Ok((groups.of().to_vec(), info))
    }

    #[test]
    fn names_make_groups() {
        let ids = ["good/p1/a_0.png", "good/p1/a_1.png", "good/p2/a_0.png", "b_7.png"];
        assert_eq!(of("none", &ids).unwrap().0, [0, 1, 2, 3]);
        assert_eq!(of("folder", &ids).unwrap().0, [0, 0, 1, 2]);
        assert_eq!(of(r"([ab])_\d", &ids).unwrap().0, [0, 0, 0, 1]);
        assert_eq!(of(r"[ab]_\d", &ids).unwrap().0, [0, 1, 0, 2]);
        assert!(GroupBy::Auto.by_name(&samples(&ids).iter().collect::<Vec<_>>()).unwrap().is_none());
    }

    #[test]
    fn a_pattern_that_does_not_match_names_the_image() {
        let error = of("fodler", &["good/a.png"]).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, MethodError::Setting(_)) && message.contains("good/a.png"), "{message}");
        assert!(message.contains("`folder`"), "{message}");
    }

    #[test]
    fn pauses_divide_times_whatever_the_order_of_files() {
        let times = [100.0, 5.0, 101.5, 6.0, 104.0, 7.9];
        assert_eq!(by_gaps(&times, 2.0).of(), [0, 1, 0, 1, 2, 1]);
        assert_eq!(by_gaps(&times, 3.0).count(), 2);
        assert_eq!(by_gaps(&times, 0.0).count(), 6);
        assert_eq!(by_gaps(&[3.0, 3.0, 4.0], 0.0).of(), [0, 0, 1]);
    }

    #[test]
    fn what_is_no_way_to_group_is_refused() {
        for text in ["", "gap=", "gap=-1", "gap=NaN", "gap=inf", "(unclosed"] {
            assert!(text.parse::<GroupBy>().is_err(), "{text}");
        }
    }
}

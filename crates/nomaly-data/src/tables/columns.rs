//! The roles of the columns of a file.

use std::path::Path;

use super::ReadOptions;
use crate::DataError;
use crate::error::hint;

/// The use of each column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Feature,
    Label,
    Id,
    Group,
    /// Neither read nor checked.
    Ignored,
}

/// The columns of a file, checked against the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// The role of every column of the file.
    pub(super) roles: Vec<Role>,
    /// The indices of the features in the file.
    pub(super) features: Vec<usize>,
    /// The names of the features, if the file has names.
    pub(super) names: Option<Vec<String>>,
    pub(super) label: Option<usize>,
    pub(super) id: Option<usize>,
    pub(super) group: Option<usize>,
}

impl Columns {
    /// Assigns roles in a file with `count` columns and optional `names`.
    pub(super) fn new(
        path: &Path,
        count: usize,
        names: Option<&[String]>,
        options: &ReadOptions,
    ) -> Result<Self, DataError> {
        let mut roles = vec![Role::Feature; count];
        let asked = options.label.iter().map(|name| (name, Role::Label));
        let asked = asked.chain(options.id.iter().map(|name| (name, Role::Id)));
        let asked = asked.chain(options.group.iter().map(|name| (name, Role::Group)));
        for (name, role) in asked.chain(options.ignore.iter().map(|name| (name, Role::Ignored))) {
            let place = find(path, name, count, names)?;
            if roles[place] != Role::Feature && roles[place] != role {
                return Err(DataError::table(path, format!("column `{name}` is given two roles")));
            }
            roles[place] = role;
        }
        let features: Vec<usize> = (0..count).filter(|&column| roles[column] == Role::Feature).collect();
        if features.is_empty() {
            return Err(DataError::table(path, "no column is left to learn from"));
        }
        let place = |role| roles.iter().position(|&other| other == role);
        let (label, id, group) = (place(Role::Label), place(Role::Id), place(Role::Group));
        let names = names.map(|names| features.iter().map(|&column| names[column].clone()).collect::<Vec<_>>());
        if let Some(names) = &names {
            check_names(path, names, &features)?;
        }
        Ok(Self { roles, features, names, label, id, group })
    }
}

fn check_names(path: &Path, names: &[String], places: &[usize]) -> Result<(), DataError> {
    let mut seen = std::collections::BTreeSet::new();
    for (name, place) in names.iter().zip(places) {
        if name.is_empty() {
            let number = place + 1;
            let reason =
                format!("column {number} has no name, as a written index has none: `--ignore {number}` leaves it out");
            return Err(DataError::table(path, reason));
        }
        if !seen.insert(name) {
            return Err(DataError::table(path, format!("two columns are called `{name}`")));
        }
    }
    Ok(())
}

/// The index of the column `name`, which may be a number from 1 if no column has that name.
fn find(path: &Path, name: &str, count: usize, names: Option<&[String]>) -> Result<usize, DataError> {
    if let Some(place) = names.and_then(|names| names.iter().position(|known| known == name)) {
        return Ok(place);
    }
    match name.parse::<usize>() {
        Ok(number) if (1..=count).contains(&number) => Ok(number - 1),
        _ => Err(DataError::Unknown {
            kind: "column",
            name: name.to_owned(),
            dataset: path.display().to_string(),
            hint: match names {
                Some(names) => hint(name, names.iter().map(String::as_str)),
                None => format!("it has no names, and columns are numbered from 1 to {count}"),
            },
        }),
    }
}

//! Adapts the settings of a method to several sizes.

use nomaly_methods::MethodEntry;
use nomaly_settings::Assignments;

use crate::DetectorError;

/// The settings of a method for several sizes, where the score is the largest value of the fused map. Settings of other
/// scores are rejected if given, and switched off otherwise.
pub(super) fn of_several_sizes(
    entry: &MethodEntry,
    sizes: &[u32],
    given: &Assignments,
) -> Result<Assignments, DetectorError> {
    if entry.trains || entry.classes {
        let why = if entry.trains { "trains a network" } else { "tells classes apart" };
        let sizes = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(DetectorError::setting("sizes", &sizes, &format!("one size for {}, which {why}", entry.name)));
    }
    let table = (entry.table)();
    let knows = |name: &str| table.get(name).is_some();
    let mut given = given.clone();
    for (name, only) in [("reweighting", "off"), ("score", "map")].into_iter().filter(|(name, _)| knows(name)) {
        match given.text(name) {
            Some(value) if value != only && value != "auto" => {
                return Err(DetectorError::setting(name, &value, &format!("`{only}` where there are several `sizes`")));
            }
            _ => given.set(name, only),
        }
    }
    match given.text("neighbours").filter(|_| knows("reweighting")) {
        Some(value) => Err(DetectorError::setting("neighbours", &value, "nothing where there are several `sizes`")),
        None => Ok(given),
    }
}

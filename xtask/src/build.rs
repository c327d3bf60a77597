//! Builds programs of the workspace, for the device that their networks run on.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace_root;

#[derive(clap::Args)]
pub(crate) struct DeviceArgs {
    /// Where networks run: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
}

impl DeviceArgs {
    /// The name, for `--device` of another program.
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// The feature that programs need for the device.
    fn feature(&self) -> Option<&str> {
        match self.device.split(':').next() {
            Some("cpu") | None => None,
            Some("candle-cpu") => Some("candle"),
            other => other,
        }
    }

    /// Builds a package for the device, optimized.
    pub(crate) fn build(&self, package: &str, more: &[&str]) -> anyhow::Result<()> {
        let mut arguments = vec!["build", "--release", "--locked", "--package", package];
        arguments.extend(self.feature().iter().flat_map(|feature| ["--features", feature]));
        arguments.extend(more);
        cargo(&arguments)
    }
}

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// Runs cargo in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(program).args(arguments).current_dir(workspace_root()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_features() {
        let feature = |device: &str| DeviceArgs { device: device.to_owned() }.feature().map(str::to_owned);
        assert_eq!(feature("cpu"), None);
        assert_eq!(feature("cuda:1").as_deref(), Some("cuda"));
        assert_eq!(feature("metal").as_deref(), Some("metal"));
        assert_eq!(feature("candle-cpu").as_deref(), Some("candle"));
    }
}

//! The table of methods in `docs/methods.md` matches the registry.

use std::fmt::Write;
use std::path::Path;

use nomaly_methods::METHODS;

const BEGIN: &str =
    "<!-- methods: written from the registry by a test of nomaly-methods; NOMALY_UPDATE_DOCS=1 rewrites it -->\n";
const END: &str = "<!-- /methods -->";

/// The part between the marks, generated from the registry.
fn rendered() -> String {
    let mut text = String::new();
    for entry in METHODS.iter() {
        let maps = if entry.maps { "gives anomaly maps" } else { "scores whole images" };
        let _ = write!(
            text,
            "### `{}`\n\n{}{}.\n\n* Paper: {}.\n* Needs {} good images; {maps}.\n* Fit: {}. Score: {}. Keeps: {}.\n",
            entry.name,
            entry.summary[..1].to_uppercase(),
            &entry.summary[1..],
            entry.paper,
            entry.min_images,
            entry.cost.fit,
            entry.cost.predict,
            entry.cost.memory,
        );
        for published in entry.published {
            let _ = write!(text, "* Published for {}: image AUROC {:.1}", published.on, published.image_auroc);
            for (name, value) in [("pixel AUROC", published.pixel_auroc), ("AUPRO", published.aupro)] {
                if let Some(value) = value {
                    let _ = write!(text, ", {name} {value:.1}");
                }
            }
            text.push_str(" (percent).\n");
        }
        text.push_str("\n| setting | default | values | what it does |\n|---|---|---|---|\n");
        for setting in &(entry.table)() {
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                setting.name,
                cell(&setting.default),
                cell(&setting.values),
                cell(&setting.summary)
            );
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_page_of_methods_says_what_the_registry_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/methods.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/methods.md has the opening mark");
    let (found, after) = rest.split_once(END).expect("docs/methods.md has the closing mark");
    if found == rendered() {
        return;
    }
    if std::env::var_os("NOMALY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, [before, BEGIN, &rendered(), END, after].concat()).unwrap();
        return;
    }
    panic!("docs/methods.md is behind the registry: run `NOMALY_UPDATE_DOCS=1 cargo test -p nomaly-methods docs`");
}

//! Backbones: one network with weights or several joined, and the extractors compiled from them.

use std::path::PathBuf;
use std::sync::Arc;

use nomaly_nn::runtime::{Executor, Runnable};
use nomaly_registry::UnknownName;

use crate::error::BackboneError;
use crate::extractor::{Compiled, Extractor, Renormalize};
use crate::part::Part;
use crate::registry::{BACKBONES, BackboneEntry, Preprocessing};
use crate::taps::{PIXELS, PREFIX_SEPARATOR, TapInfo, TapRequest};
use crate::weights;
use nomaly_nn::graph::Graph;
use nomaly_nn::weights::Weights;

/// The separator between the names of joined networks.
const JOIN_SEPARATOR: char = '+';

/// Where [`Backbone::open`] looks for weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// A weight file (`.safetensors`, `.pth`, `.pt`); otherwise the embedded weights, then the store are tried.
    pub weights: Option<PathBuf>,
}

/// One network with weights, or several joined.
///
/// Weights may be truncated. A file without the classifier, or one that ends after a middle layer, serves the taps up
/// to there. Batch norm may have been folded into the convolutions: such a file has a bias for each convolution and no
/// batch norm tensors. Tensors that the architecture does not know are left out and listed by [`Backbone::ignored`].
///
/// # Joined networks
/// `efficientnet-lite0+mobilenetv2` runs each image through both; more than two can be joined. Taps and tensors are
/// named `efficientnet-lite0/stage3`, and so on. Images are prepared as for the first network; the others get the same
/// pixels with their own normalization. Joined networks are for features: training, and reading a single weight file,
/// take one network.
///
/// # No network
/// Methods that see nothing but [pixels](crate::PIXELS) stand on [`Backbone::pixels`], which has no network.
pub struct Backbone {
    name: String,
    /// The networks in the order of the name.
    parts: Vec<Part>,
    ignored: Vec<String>,
    source: String,
    licence: String,
}

impl std::fmt::Debug for Backbone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backbone")
            .field("name", &self.name)
            .field("tensors", &self.parts.iter().map(Part::tensors).sum::<usize>())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Backbone {
    /// The default backbone, whose weights are part of the library: EfficientNet-Lite0.
    ///
    /// # Errors
    /// If the embedded weights cannot be unpacked.
    pub fn embedded() -> Result<Self, BackboneError> {
        Self::open("efficientnet-lite0", &OpenOptions::default())
    }

    /// Opens a backbone by name, with weights from the file in `options`, or else embedded ones, or else from the store
    /// that `nomaly weights get` fills.
    ///
    /// # Errors
    /// For an unknown name, networks that cannot be joined, missing weights, a weight file for joined networks, and
    /// those of [`Backbone::from_tensors`].
    pub fn open(name: &str, options: &OpenOptions) -> Result<Self, BackboneError> {
        let entries = entries(name)?;
        if let [entry] = entries[..] {
            return Self::open_one(entry, options);
        }
        if options.weights.is_some() {
            return Err(BackboneError::OneNetwork { backbone: name.to_owned(), what: "a weight file" });
        }
        let opened = entries.iter().map(|entry| Self::open_one(entry, options)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::joined(name, opened))
    }

    fn open_one(entry: &'static BackboneEntry, options: &OpenOptions) -> Result<Self, BackboneError> {
        let name = entry.name;
        if let Some(path) = &options.weights {
            let backbone = Self::from_tensors(name, weights::read(path)?)?;
            // Only the file name: paths of one machine mean nothing on another.
            let file = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
            return Ok(backbone.with_provenance(file, UNSTATED));
        }
        let Some(known) = entry.weights else {
            let Some(publisher) = entry.publisher else {
                return Err(BackboneError::Untrained { backbone: name.to_owned() });
            };
            let Some(tensors) = weights::load(name)? else {
                return Err(BackboneError::NotImported { backbone: name.to_owned(), publisher });
            };
            return Ok(Self::from_tensors(name, tensors)?.with_provenance("an imported file", UNSTATED));
        };
        if known.embedded {
            let backbone = Self::from_tensors(name, weights::embedded()?)?;
            return Ok(backbone.with_provenance(known.origin, known.licence));
        }
        match weights::load(name)? {
            Some(tensors) => Ok(Self::from_tensors(name, tensors)?.with_provenance(known.origin, known.licence)),
            None => Err(BackboneError::NoWeights { backbone: name.to_owned() }),
        }
    }

    /// No network, for methods that see nothing but pixels: its [extractors](Self::compile) give the images themselves.
    /// Models of such methods call it [`pixels`](crate::PIXELS).
    pub fn pixels() -> Self {
        let [source, licence] = [NO_WEIGHTS; 2].map(str::to_owned);
        Self { name: PIXELS.to_owned(), parts: Vec::new(), ignored: Vec::new(), source, licence }
    }

    /// The network of a `graph` that is not in the registry, such as one that a method trains, with its weights. Its
    /// inputs are prepared by the method.
    ///
    /// # Errors
    /// For a tensor that is missing for the shallowest tap or of the wrong shape, numbers that are not finite, and
    /// negative variances.
    pub fn of_graph(name: &str, graph: Graph, mut weights: Weights) -> Result<Self, BackboneError> {
        let parts = vec![Part::of_graph(name, graph, Preprocessing::PIXELS, &mut weights)?];
        let (source, licence) = ("tensors".to_owned(), UNSTATED.to_owned());
        Ok(Self { name: name.to_owned(), parts, ignored: weights.into_keys().collect(), source, licence })
    }

    /// Joins backbones of one network each.
    fn joined(name: &str, opened: Vec<Self>) -> Self {
        let sources: Vec<String> = opened.iter().map(|one| format!("{}: {}", one.name, one.source)).collect();
        let mut licences: Vec<&str> = opened.iter().map(|one| one.licence.as_str()).collect();
        licences.sort_unstable();
        licences.dedup();
        let (source, licence) = (sources.join("; "), licences.join(" AND "));
        let mut ignored = Vec::new();
        let mut parts = Vec::new();
        for one in opened {
            for mut part in one.parts {
                part.prefix = prefix(&part.name);
                ignored.extend(one.ignored.iter().map(|tensor| format!("{}{tensor}", part.prefix)));
                parts.push(part);
            }
        }
        Self { name: name.to_owned(), parts, ignored, source, licence }
    }

    /// A backbone to be trained from scratch: convolutions and the classifier He-normal, biases and running means 0,
    /// batch norm's factors and running variances 1. The same `seed` gives the same weights.
    ///
    /// # Errors
    /// For an unknown name, and for joined networks.
    pub fn initialized(name: &str, classes: usize, seed: u64) -> Result<Self, BackboneError> {
        let [entry] = entries(name)?[..] else {
            return Err(BackboneError::OneNetwork { backbone: name.to_owned(), what: "training from the start" });
        };
        let graph = entry.architecture.graph(classes);
        let backbone = Self::from_tensors(name, nomaly_nn::init::he_normal(&graph, seed))?;
        Ok(backbone.with_provenance(format!("initialised with seed {seed}"), UNSTATED))
    }

    /// Builds a backbone from tensors, such as those of a model file, whose name may be [`pixels`](Self::pixels). The
    /// classifier may have any number of classes.
    ///
    /// # Errors
    /// For an unknown name, networks that cannot be joined, a tensor of the wrong shape, numbers that are not finite,
    /// negative variances, and if not even the shallowest tap of a network can be served.
    pub fn from_tensors(name: &str, mut weights: Weights) -> Result<Self, BackboneError> {
        let (source, licence) = ("tensors".to_owned(), UNSTATED.to_owned());
        if name == PIXELS {
            return Ok(Self { ignored: weights.into_keys().collect(), ..Self::pixels() });
        }
        let entries = entries(name)?;
        let mut parts = Vec::with_capacity(entries.len());
        if let [entry] = entries[..] {
            parts.push(Part::take(entry, String::new(), &mut weights)?);
            let ignored = weights.into_keys().collect();
            return Ok(Self { name: name.to_owned(), parts, ignored, source, licence });
        }
        let mut ignored = Vec::new();
        for entry in entries {
            let prefix = prefix(entry.name);
            let (own, others): (Weights, Weights) =
                weights.into_iter().partition(|(name, _)| name.starts_with(&prefix));
            weights = others;
            let mut own = own.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
            let part = Part::take(entry, prefix, &mut own)?;
            ignored.extend(own.into_keys().map(|name| format!("{}{name}", part.prefix)));
            parts.push(part);
        }
        ignored.extend(weights.into_keys());
        Ok(Self { name: name.to_owned(), parts, ignored, source, licence })
    }

    /// The same backbone with the source and the licence of its weights.
    pub fn with_provenance(mut self, source: impl Into<String>, licence: impl Into<String>) -> Self {
        self.source = source.into();
        self.licence = licence.into();
        self
    }

    /// Its name: that of its network in the registry, or those of the joined ones with `+` between them.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The entries of its networks in the registry, in the order of the name.
    pub fn entries(&self) -> impl Iterator<Item = &'static BackboneEntry> + '_ {
        self.parts.iter().filter_map(|part| part.entry)
    }

    /// Whether there is a network.
    pub fn has_network(&self) -> bool {
        !self.parts.is_empty()
    }

    /// What it computes.
    ///
    /// # Errors
    /// For joined networks, which have a graph each, and without a network.
    pub fn graph(&self) -> Result<&Graph, BackboneError> {
        match &self.parts[..] {
            [part] => Ok(&part.graph),
            _ => Err(self.not_one("a graph")),
        }
    }

    /// The error of an operation that takes one network.
    fn not_one(&self, what: &'static str) -> BackboneError {
        let backbone = self.name.clone();
        if self.parts.is_empty() {
            BackboneError::NoNetwork { what }
        } else {
            BackboneError::OneNetwork { backbone, what }
        }
    }

    /// The taps that the weights serve, per network from the shallowest to the deepest; without a network the pixels.
    pub fn taps(&self) -> Vec<TapInfo> {
        if self.parts.is_empty() {
            return vec![TapInfo { name: PIXELS.to_owned(), channels: 3, stride: Some(1) }];
        }
        self.parts.iter().flat_map(Part::taps).collect()
    }

    /// The [taps](Self::taps) of each network separately.
    pub fn taps_by_network(&self) -> impl Iterator<Item = Vec<TapInfo>> + '_ {
        self.parts.iter().map(|part| part.taps().collect())
    }

    /// How images are prepared for the known weights; for joined networks, those of the first.
    pub fn preprocessing(&self) -> Preprocessing {
        self.parts.first().map_or(Preprocessing::PIXELS, |part| part.preprocessing)
    }

    /// The licence of the weights as an SPDX expression, or `not stated`.
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// The source of the weights: their publisher, or the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names of given tensors that do not belong to the architecture, such as `num_batches_tracked`.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Compiles an extractor of `taps` for images of `input` = (height, width), which runs on the device of `executor`.
    /// Nothing below the deepest tap of a network is computed, and networks without a tap are skipped. The
    /// [pixels](crate::PIXELS) are a tap of every backbone.
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have, for an empty list of taps, for an input that is too
    /// small, for an instruction set that this machine lacks, and if the device fails.
    pub fn compile(
        &self,
        input: [usize; 2],
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Extractor, BackboneError> {
        if taps.is_empty() {
            let taps = self.taps().into_iter().map(|tap| tap.name).collect::<Vec<_>>().join(", ");
            return Err(BackboneError::NoTaps { backbone: self.name.clone(), taps });
        }
        let node = |tap: &TapRequest| if tap.is_pixels() { Ok(None) } else { self.tap_node(&tap.name).map(Some) };
        let nodes = taps.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let mut networks = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            let node_of = |tap: usize| nodes[tap].filter(|(of, _)| *of == place).map(|(_, node)| (tap, node));
            let own: Vec<(usize, usize)> = (0..taps.len()).filter_map(node_of).collect();
            if own.is_empty() {
                continue;
            }
            let outputs: Vec<_> = own.iter().map(|&(tap, node)| (node, taps[tap].layout)).collect();
            networks.push(Compiled {
                network: part.compile(input, &outputs, executor)?,
                taps: own.into_iter().map(|(tap, _)| tap).collect(),
                renormalize: Renormalize::between(&self.preprocessing(), &part.preprocessing),
            });
        }
        Ok(Extractor::new(input, networks, taps.to_vec()))
    }

    /// Makes a single network ready for inference of `taps` on the device of `executor`, for inputs of these heights
    /// and widths in the order of their nodes. Unlike [`compile`](Self::compile), this takes graphs of any operations
    /// and of several inputs.
    ///
    /// # Errors
    /// As [`compile`](Self::compile), and for joined networks or no network.
    pub fn inference(
        &self,
        inputs: &[[usize; 2]],
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Arc<dyn Runnable>, BackboneError> {
        let [part] = &self.parts[..] else { return Err(self.not_one("inference of a graph")) };
        let output = |tap: &TapRequest| self.tap_node(&tap.name).map(|(_, node)| (node, tap.layout));
        part.inference(inputs, &taps.iter().map(output).collect::<Result<Vec<_>, _>>()?, executor)
    }

    /// The tensors that the deepest of `taps` needs, with their original names, shapes and number formats, as stored in
    /// model files and accepted by [`Backbone::from_tensors`].
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have.
    pub fn export(&self, taps: &[&str]) -> Result<Weights, BackboneError> {
        let of_networks = taps.iter().filter(|tap| **tap != PIXELS);
        let nodes = of_networks.map(|tap| self.tap_node(tap)).collect::<Result<Vec<_>, _>>()?;
        let mut exported = Weights::new();
        for (place, part) in self.parts.iter().enumerate() {
            let own: Vec<usize> = nodes.iter().filter(|(of, _)| *of == place).map(|(_, node)| *node).collect();
            let named = part.export(&own).into_iter().map(|(name, tensor)| (format!("{}{name}", part.prefix), tensor));
            exported.extend(named);
        }
        Ok(exported)
    }

    /// The part of the network that the `taps` need on a candle device. The parameters whose names `train` accepts
    /// become variables.
    ///
    /// # Errors
    /// For joined networks, for a tap that the backbone or its weights do not have, and if the device fails.
    #[cfg(feature = "candle")]
    pub fn module(
        &self,
        taps: &[&str],
        device: &candle_core::Device,
        train: impl Fn(&str) -> bool,
    ) -> Result<nomaly_nn::module::Module, BackboneError> {
        let graph = self.graph()?.clone();
        let outputs = taps.iter().map(|tap| self.tap_node(tap).map(|(_, node)| node)).collect::<Result<Vec<_>, _>>()?;
        Ok(nomaly_nn::module::Module::trainable(graph, outputs, &self.export(taps)?, device, train)?)
    }

    /// The first of the joined networks without any of the `taps`.
    pub fn unused(&self, taps: &[TapRequest]) -> Option<&str> {
        let unused = |part: &&Part| !taps.iter().any(|tap| tap.name.starts_with(&part.prefix));
        self.parts.iter().find(unused).map(|part| part.name.as_str())
    }

    pub(crate) fn part(&self, place: usize) -> &Part {
        &self.parts[place]
    }

    /// The index of the network that has a tap, and its node there, if the weights serve it.
    pub(crate) fn tap_node(&self, name: &str) -> Result<(usize, usize), BackboneError> {
        for (place, part) in self.parts.iter().enumerate() {
            let own = name.strip_prefix(&part.prefix);
            if let Some(position) = own.and_then(|own| part.graph.taps().iter().position(|tap| tap.name == own)) {
                return Ok((place, part.served_node(position)?));
            }
        }
        let known: Vec<String> = self
            .parts
            .iter()
            .flat_map(|part| part.graph.taps().iter().map(|tap| format!("{}{}", part.prefix, tap.name)))
            .collect();
        let source = UnknownName::new("tap", name, known.iter().map(String::as_str));
        Err(BackboneError::UnknownTap { backbone: self.name.clone(), source })
    }
}

/// Former names of backbones that are none, and what to do instead.
const FORMER: [(&str, &str); 2] = [
    (PIXELS, "the methods adacl, cutpaste, geotrans and patches see pixels without one"),
    ("adacl-cnn", "it is the network of the method adacl, which has it without being told"),
];

const NO_WEIGHTS: &str = "no weights";
const UNSTATED: &str = "not stated";

/// The entries of the networks in a name.
///
/// # Errors
/// For an unknown name, and for a network that is named twice.
fn entries(name: &str) -> Result<Vec<&'static BackboneEntry>, BackboneError> {
    if let Some((name, instead)) =
        FORMER.into_iter().find(|(former, _)| name.split(JOIN_SEPARATOR).any(|one| one == *former))
    {
        return Err(BackboneError::NoBackbone { name, instead });
    }
    let entries = name.split(JOIN_SEPARATOR).map(|part| BACKBONES.get(part)).collect::<Result<Vec<_>, _>>()?;
    if let [_] = entries[..] {
        return Ok(entries);
    }
    for (place, entry) in entries.iter().enumerate() {
        let refuse =
            |reason| Err(BackboneError::NotJoinable { backbone: name.to_owned(), network: entry.name, reason });
        if entries[..place].iter().any(|earlier| earlier.name == entry.name) {
            return refuse("is named twice, and would say the same twice");
        }
    }
    Ok(entries)
}

/// The prefix of the names of a joined network's taps and tensors.
fn prefix(network: &str) -> String {
    format!("{network}{PREFIX_SEPARATOR}")
}

#[cfg(test)]
mod tests {
    use nomaly_kernels::geometry::OutputLayout;

    use super::*;

    #[test]
    fn joined_weights_have_all_their_sources_and_licences() {
        let one = |name: &str, licence: &str| {
            let mut one = Backbone::initialized(name, 2, 0).unwrap().with_provenance("a zoo", licence);
            one.ignored.push("step".to_owned());
            one
        };
        let joined = Backbone::joined("resnet18+mobilenetv2", vec![one("resnet18", "MIT"), one("mobilenetv2", "ISC")]);
        assert_eq!((joined.name(), joined.licence()), ("resnet18+mobilenetv2", "ISC AND MIT"));
        assert_eq!(joined.source(), "resnet18: a zoo; mobilenetv2: a zoo");
        assert_eq!(joined.ignored(), ["resnet18/step", "mobilenetv2/step"]);
        let alike = Backbone::joined("resnet18+mobilenetv2", vec![one("resnet18", "MIT"), one("mobilenetv2", "MIT")]);
        assert_eq!(alike.licence(), "MIT");
        assert_eq!(alike.preprocessing(), alike.parts[0].preprocessing);
    }

    #[test]
    fn a_name_is_of_one_network_or_of_several_different_ones() {
        let names =
            |name: &str| entries(name).map(|entries| entries.iter().map(|entry| entry.name).collect::<Vec<_>>());
        assert_eq!(names("resnet18").unwrap(), ["resnet18"]);
        let three = "efficientnet-lite0+mobilenetv2+resnet18";
        assert_eq!(names(three).unwrap(), ["efficientnet-lite0", "mobilenetv2", "resnet18"]);
        for (name, expected) in [
            (
                "resnet18+resnet18",
                "resnet18+resnet18 cannot be joined: resnet18 is named twice, and would say the same twice",
            ),
            (
                "efficientnet-lite0+pixels",
                "`pixels` is no backbone: the methods adacl, cutpaste, geotrans and patches see pixels without one",
            ),
            (
                "adacl-cnn",
                "`adacl-cnn` is no backbone: it is the network of the method adacl, which has it without being told",
            ),
            ("efficientnet-lite0+mobilnetv2", "unknown backbone `mobilnetv2`; did you mean `mobilenetv2`?"),
        ] {
            assert_eq!(names(name).unwrap_err().to_string(), expected);
        }
        assert!(
            matches!(entries("resnet18+"), Err(BackboneError::UnknownBackbone(unknown)) if unknown.name.is_empty())
        );
    }

    #[test]
    fn a_weight_file_a_graph_and_training_are_of_one_network() {
        let name = "resnet18+mobilenetv2";
        let options = OpenOptions { weights: Some("x.pth".into()) };
        let joined = Backbone::joined(
            name,
            ["resnet18", "mobilenetv2"].map(|one| Backbone::initialized(one, 2, 0).unwrap()).into(),
        );
        let errors = [
            Backbone::open(name, &options).map(drop),
            Backbone::initialized(name, 2, 0).map(drop),
            joined.graph().map(drop),
        ];
        for (error, what) in errors.into_iter().zip(["a weight file", "training from the start", "a graph"]) {
            let expected = format!("{name} is several networks joined, and {what} is for one: name one of them alone");
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn pixels_are_what_goes_in() {
        let executor = Executor::cpu().unwrap();
        let layouts = [OutputLayout::Nchw, OutputLayout::Rows, OutputLayout::Mean];
        let taps = layouts.map(TapRequest::pixels);
        let image: Vec<f32> = (0..2 * 3 * 32 * 32).map(|value| value as f32 / 6143.0).collect();
        for backbone in [Backbone::pixels(), Backbone::initialized("wrn-10-1", 2, 0).unwrap()] {
            let extractor = backbone.compile([32, 32], &taps, &executor).unwrap();
            let mut outputs = vec![Vec::new(); 3];
            let mut workspace = extractor.workspace(2);
            extractor.run(&image, 2, &mut workspace, &mut outputs).unwrap();
            assert_eq!(
                (extractor.input_shape(), extractor.output_shape(1), extractor.output_shape(2)),
                ([3, 32, 32], [3, 32, 32], [3, 1, 1])
            );
            assert_eq!(outputs[0], image);
            assert_eq!(outputs[1][..6], [image[0], image[1024], image[2048], image[1], image[1025], image[2049]]);
            assert_eq!(outputs[1][3072..3075], [image[3072], image[4096], image[5120]]);
            let mean = (3072.0 + 1023.0 / 2.0) / 6143.0;
            assert!((outputs[2][3] - mean).abs() < 1e-5, "{} {mean}", outputs[2][3]);
            assert!(extractor.run(&image[1..], 2, &mut workspace, &mut outputs).is_err());
            assert!(backbone.export(&["pixels"]).unwrap().is_empty());
        }
        let none = Backbone::pixels();
        assert!(!none.has_network() && none.taps()[0].name == "pixels");
        assert!(matches!(none.graph(), Err(BackboneError::NoNetwork { what: "a graph" })));
        assert!(none.compile([8, 8], &[TapRequest::new("layer1", OutputLayout::Rows)], &executor).is_err());
        let restored = Backbone::from_tensors("pixels", Weights::new()).unwrap();
        assert_eq!((restored.name(), restored.licence()), ("pixels", "no weights"));
        // Beside taps of a network.
        let network = Backbone::initialized("wrn-10-1", 2, 0).unwrap();
        let stem = network.taps().remove(0).name;
        let both = [TapRequest::pixels(OutputLayout::Nchw), TapRequest::new(stem, OutputLayout::Mean)];
        let run = |taps: &[TapRequest]| {
            let extractor = network.compile([32, 32], taps, &executor).unwrap();
            let mut outputs = vec![Vec::new(); taps.len()];
            extractor.run(&image, 2, &mut extractor.workspace(2), &mut outputs).unwrap();
            outputs
        };
        let (outputs, alone) = (run(&both), run(&both[1..]));
        assert_eq!((&outputs[0], &outputs[1]), (&image, &alone[0]));
    }
}

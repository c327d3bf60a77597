//! The formulas of optimizers with their constants.

use nomaly_kernels::training::{StableForm, WeightDecay};

/// The formula of an optimizer and its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent, as `torch.optim.SGD`.
    Sgd {
        /// Learning rate.
        rate: f64,
        /// Share of the velocity that is kept; 0 for plain descent.
        momentum: f64,
        /// Share of the gradient that does not enter the velocity.
        dampening: f64,
        /// Factor of the parameters that is added to their gradient.
        weight_decay: f64,
        /// Whether the step looks ahead.
        nesterov: bool,
    },
    /// Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW`.
    Adam {
        /// Learning rate.
        rate: f64,
        /// Decay of the first and of the second moment.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Factor of the parameters.
        weight_decay: f64,
        /// What weight decay does.
        decay: WeightDecay,
        /// Whether the step divides by the root of the largest second moment so far (AMSGrad).
        amsgrad: bool,
    },
    /// Adam with Nesterov momentum, as `torch.optim.NAdam`.
    NAdam {
        /// Learning rate.
        rate: f64,
        /// Decay of the first and of the second moment.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
        /// How fast the momentum grows from half of the first beta to all of it.
        momentum_decay: f64,
        /// Factor of the parameters.
        weight_decay: f64,
        /// What weight decay does.
        decay: WeightDecay,
    },
    /// RMSProp, as `torch.optim.RMSprop`.
    RmsProp {
        /// Learning rate.
        rate: f64,
        /// Share of the running means that is kept.
        alpha: f64,
        /// Added to the root of the mean square.
        epsilon: f64,
        /// Factor of the parameters that is added to their gradient.
        weight_decay: f64,
        /// Share of the velocity that is kept; 0 for none.
        momentum: f64,
        /// Whether the gradient is divided by its deviation instead of its root mean square.
        centered: bool,
    },
    /// AdamW whose rate is lowered for a tensor with unusually large gradients
    /// ([`StableAdamWStep`](nomaly_kernels::training::StableAdamWStep)).
    StableAdamW {
        /// Learning rate.
        rate: f64,
        /// Decay of the first and of the second moment.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Factor of the parameters, decoupled from the gradient.
        weight_decay: f64,
        /// Whether the step divides by the root of the largest second moment so far (AMSGrad).
        amsgrad: bool,
        /// Whose form of it.
        form: StableForm,
    },
}

impl Rule {
    /// SGD with momentum, without weight decay.
    pub const fn sgd(rate: f64, momentum: f64) -> Self {
        Self::Sgd { rate, momentum, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }

    /// Adam with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, no weight decay.
    pub const fn adam(rate: f64) -> Self {
        let (betas, decay) = ([0.9, 0.999], WeightDecay::Gradient);
        Self::Adam { rate, betas, epsilon: 1e-8, weight_decay: 0.0, decay, amsgrad: false }
    }

    /// AdamW with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01.
    pub const fn adamw(rate: f64) -> Self {
        let (betas, decay) = ([0.9, 0.999], WeightDecay::Decoupled);
        Self::Adam { rate, betas, epsilon: 1e-8, weight_decay: 0.01, decay, amsgrad: false }
    }

    /// NAdam with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, momentum decay 0.004, no weight decay.
    pub const fn nadam(rate: f64) -> Self {
        let (betas, decay) = ([0.9, 0.999], WeightDecay::Gradient);
        Self::NAdam { rate, betas, epsilon: 1e-8, momentum_decay: 0.004, weight_decay: 0.0, decay }
    }

    /// RMSProp with PyTorch's defaults: alpha 0.99, epsilon 1e-8, without momentum and weight decay, not centered.
    pub const fn rmsprop(rate: f64) -> Self {
        Self::RmsProp { rate, alpha: 0.99, epsilon: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }

    /// StableAdamW in its published form: betas 0.9 and 0.99, epsilon 1e-6, weight decay 0.01.
    pub const fn stable_adamw(rate: f64) -> Self {
        let (betas, form) = ([0.9, 0.99], StableForm::Published);
        Self::StableAdamW { rate, betas, epsilon: 1e-6, weight_decay: 0.01, amsgrad: false, form }
    }

    /// The learning rate.
    pub const fn rate(self) -> f64 {
        match self {
            Self::Sgd { rate, .. }
            | Self::Adam { rate, .. }
            | Self::NAdam { rate, .. }
            | Self::RmsProp { rate, .. }
            | Self::StableAdamW { rate, .. } => rate,
        }
    }

    /// The same rule with another learning rate, for schedules.
    #[must_use]
    pub const fn with_rate(mut self, new: f64) -> Self {
        match &mut self {
            Self::Sgd { rate, .. }
            | Self::Adam { rate, .. }
            | Self::NAdam { rate, .. }
            | Self::RmsProp { rate, .. }
            | Self::StableAdamW { rate, .. } => *rate = new,
        }
        self
    }

    /// The same rule with another weight decay.
    #[must_use]
    pub const fn with_weight_decay(mut self, new: f64) -> Self {
        match &mut self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::NAdam { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. }
            | Self::StableAdamW { weight_decay, .. } => *weight_decay = new,
        }
        self
    }
}

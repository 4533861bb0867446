"""Every method with tiny networks. A new method joins by one entry in METHODS: (spatial_dims, C, K) -> a tiny segmenter."""

import torch
from monai.networks.nets import FullyConnectedNet

from monai_flowssn.flows import GlowFlow, PlanarFlow, RadialFlow
from monai_flowssn.networks import (
    GaussianEncoder,
    GaussianLadder,
    JointDecoder,
    LadderDecoder,
    LatentHead,
    MaskedLinear,
    ModulatedHead,
    PlainUNet,
    PromptDecoder,
    StreamlinedUNet,
    StripTransformer,
    VectorLadder,
)
from monai_flowssn.segmenters import (
    P2SAM,
    SSN,
    AmbiguousDiffusion,
    AutoregressiveFlowSSN,
    CategoricalDiffusion,
    ContinuousFlowSSN,
    DeterministicUNet,
    DualFlowSSN,
    FlowMatching,
    InformedAutoregressiveFlowSSN,
    InformedFlowSSN,
    JointProbabilisticUNet,
    MixtureOfStochasticExperts,
    PHiSeg,
    ProbabilisticUNet,
    TransportedP2SAM,
)

B, N = 2, 3
SIZES = {2: (8, 4), 3: (4, 2, 4)}
SETTINGS = {"2-D, K=2": (2, 1, 2), "2-D, K=4": (2, 3, 4), "3-D, K=4": (3, 2, 4)}


def unet(dims, inputs, outputs, **options):
    return StreamlinedUNet(dims, inputs, outputs, channels=(4, 8), **options)


def flow(dims, inputs, k):
    return unet(dims, inputs, k, time=True)


def continuous(base, flow, k, **options):
    return ContinuousFlowSSN(base, flow, num_classes=k, steps=2, **options)


def informed(base, flow, k, **options):
    return InformedFlowSSN(base, flow, num_classes=k, steps=2, **options)


def strips(d, k, outputs, **options):
    return StripTransformer(d, k, outputs, spatial_size=SIZES[d], strip=(2,) * d, width=8, **options)


def autoregressive(d, c, k, kind="affine", nets=1, **options):
    flows = [strips(d, k, k if kind == "volume_preserving" else 2 * k) for _ in range(nets)]
    return AutoregressiveFlowSSN(unet(d, c, k), flows, num_classes=k, kind=kind, train_draws=3, **options)


def informed_autoregressive(d, c, k, rank=2, **options):
    flow, base = strips(d, k, 2 * k, context_channels=k + 1), unet(d, c, k * (1 + rank) + 1)
    return InformedAutoregressiveFlowSSN(base, flow, num_classes=k, rank=rank, train_draws=3, **options)


def dual(d, c, k):
    nets = {"density_base": unet(d, c, k), "density_flow": strips(d, k, 2 * k)}
    return DualFlowSSN(unet(d, c, k), strips(d, k, 2 * k), num_classes=k, train_draws=3, **nets)


def ssn(net, d, c, k, **options):
    return SSN(net(d, c, k * (2 + 3)), num_classes=k, rank=3, train_draws=4, **options)


def plain(d, c, outputs):
    return PlainUNet(d, c, outputs, channels=(4, 8), convs=1)


def prob_unet(d, c, k, flow=None, steps=2):
    levels = {"channels": (4, 8), "convs": 1}
    return ProbabilisticUNet(
        plain(d, c, None),
        GaussianEncoder(d, c, 6, **levels),
        posterior=GaussianEncoder(d, c + k, 6 + (8 if flow else 0), **levels),
        head=LatentHead(d, 4, 3, k, width=8),
        num_classes=k,
        flow=flow(3, 8, steps=steps, hidden=8) if flow else None,
    )


def phiseg(d, c, k):
    levels = {"channels": (4, 8), "latent_levels": 2}
    prior, posterior = GaussianLadder(d, c, **levels), GaussianLadder(d, c + k, **levels)
    return PHiSeg(prior, posterior, decoder=LadderDecoder(d, k, **levels), num_classes=k)


def matching(d, c, k, **options):
    channels = 1 if k == 2 else k
    return FlowMatching(unet(d, channels + c, channels, time=True), num_classes=k, steps=2, **options)


def cimd(d, c, k, **options):
    m, levels = (1 if k == 2 else k), {"channels": (4, 8), "convs": 1}
    prior, posterior = (GaussianEncoder(d, m + c, 6, **levels) for _ in range(2))
    net = unet(d, m + c, 2 * m, time=True)
    return AmbiguousDiffusion(net, prior, posterior=posterior, num_classes=k, timesteps=50, steps=3, **options)


def joint(d, c, k, **options):
    levels = {"channels": (4, 8), "latent_dim": 3, "growth": 4}
    prior, posterior = VectorLadder(d, c, **levels), VectorLadder(d, c + k, **levels)
    decoder = JointDecoder(d, c, k, **levels)
    return JointProbabilisticUNet(prior, posterior, decoder=decoder, num_classes=k, flow_hidden=8, **options)


def mose(d, c, k):
    features, gate = plain(d, c, None), GaussianEncoder(d, c, 3, channels=(4, 8), convs=1)
    head = ModulatedHead(d, 4, 1, k, width=8)
    return MixtureOfStochasticExperts(features, gate, head=head, num_classes=k, experts=3, samples=2)


def p2sam(kind, d, c, k, **options):
    parts = {
        "prior": GaussianEncoder(d, c, 6, channels=(4, 8), convs=1),
        "latent_dim": 3,
        "prompt": FullyConnectedNet(3, 4, [8], act="relu"),
    }
    decoder = PromptDecoder(d, 4, 3 * (1 if k == 2 else k), width=4)
    return kind(plain(d, c, None), decoder, num_classes=k, num_masks=3, **parts, **options)


METHODS = {
    "autoregressive affine": autoregressive,
    "autoregressive gated": lambda d, c, k: autoregressive(d, c, k, kind="gated", entropy_weight=0.1),
    "autoregressive volume preserving": lambda d, c, k: autoregressive(d, c, k, kind="volume_preserving", nets=2),
    "autoregressive fixed prior": lambda d, c, k: AutoregressiveFlowSSN(
        None, strips(d, k, 2 * k, context_channels=c), num_classes=k, train_draws=3
    ),
    "autoregressive informed": informed_autoregressive,
    "autoregressive informed, no factors": lambda d, c, k: informed_autoregressive(d, c, k, rank=0, entropy_weight=0.1),
    "autoregressive MADE": lambda d, c, k: AutoregressiveFlowSSN(
        unet(d, c, k), MaskedLinear(SIZES[d], k, 2 * k), num_classes=k, train_draws=3
    ),
    "autoregressive dual": dual,
    "SSN": lambda d, c, k: ssn(plain, d, c, k, antithetic=True),
    "SSN++": lambda d, c, k: ssn(unet, d, c, k),
    "probabilistic U-Net": prob_unet,
    "NF-PUNet planar": lambda d, c, k: prob_unet(d, c, k, PlanarFlow),
    "NF-PUNet radial": lambda d, c, k: prob_unet(d, c, k, RadialFlow),
    "cFlow Glow": lambda d, c, k: prob_unet(d, c, k, GlowFlow, steps=4),
    "PHiSeg": phiseg,
    "CCDM": lambda d, c, k: CategoricalDiffusion(unet(d, c + k, k, time=True), num_classes=k, timesteps=4, steps=3),
    "CIMD": cimd,
    "CIMD ancestral": lambda d, c, k: cimd(d, c, k, ancestral=True),
    "joint probabilistic U-Net": joint,
    "joint probabilistic U-Net, independent levels": lambda d, c, k: joint(d, c, k, independent_levels=True),
    "MoSE": mose,
    "P2SAM": lambda d, c, k: p2sam(P2SAM, d, c, k, skip_empty=True),
    "P2SAM transported": lambda d, c, k: p2sam(TransportedP2SAM, d, c, k, samples=3),
    "flow matching": matching,
    "flow matching unguided": lambda d, c, k: matching(d, c, k, guidance=0.0),
    "continuous markov": lambda d, c, k: continuous(unet(d, c, k), flow(d, k, k), k, velocity="markov"),
    "continuous path": lambda d, c, k: continuous(unet(d, c, k), flow(d, k, k), k, velocity="path"),
    "continuous learned std": lambda d, c, k: continuous(unet(d, c, 2 * k), flow(d, k, k), k),
    "continuous fixed prior": lambda d, c, k: continuous(None, flow(d, k + c, k), k),
    "informed": lambda d, c, k: informed(unet(d, c, k + 3), flow(d, 2 * k + 3, k), k),
    "informed, mean only": lambda d, c, k: informed(unet(d, c, k), flow(d, 2 * k, k), k, residual=False),
    "informed, features only": lambda d, c, k: informed(unet(d, c, k + 2), flow(d, k + 2, k), k, show_mean=False),
    "deterministic U-Net": lambda d, c, k: DeterministicUNet(unet(d, c, k), num_classes=k),
}


class Case:
    """One method in one setting, with data. The parameters are moved off their start, where zero-initialised layers block
    every gradient before them and make all draws alike."""

    def __init__(self, name, setting):
        torch.manual_seed(0)
        self.name, (self.dims, self.channels, self.k) = name, setting
        self.size = SIZES[self.dims]
        self.segmenter = self.build()
        with torch.no_grad():
            for parameter in self.segmenter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.image = torch.randn(B, self.channels, *self.size)

    def build(self):
        return METHODS[self.name](self.dims, self.channels, self.k).eval()

    def masks(self, r):
        return torch.randint(0, self.k, (B, r, *self.size), dtype=torch.int16)

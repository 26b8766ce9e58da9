"""The paper's model once more, step by step with LSTM cells, written from its description alone.

The truth of the parity tests: every step real, every modality present, no dropout. Weights are copied from a
model under test, and gradients compared under the same names.
"""

import torch
from torch import nn

from mfm.models import MFM


class PlainMFM(nn.Module):
    def __init__(self, model: MFM):
        super().__init__()
        self.names = sorted(model.feature_dims)
        self.copied: list[tuple[nn.Parameter, str]] = []
        self.source = dict(model.named_parameters())
        self.window = model.fusion.window
        mine = {}
        for name in self.source:  # PyTorch calls the weights of a one-layer nn.LSTM like those of a cell, plus "_l0"
            mine[name] = nn.Parameter(self.source[name].detach().clone())
        self.weights = mine

    def p(self, name):
        return self.weights[name]

    def linear(self, name, x):
        return x @ self.p(f"{name}.weight").T + self.p(f"{name}.bias")

    def cell(self, prefix, suffix, x, h, c):
        """One LSTM step with explicit gates."""
        w_ih, w_hh = self.p(f"{prefix}.weight_ih{suffix}"), self.p(f"{prefix}.weight_hh{suffix}")
        gates = x @ w_ih.T + self.p(f"{prefix}.bias_ih{suffix}") + h @ w_hh.T + self.p(f"{prefix}.bias_hh{suffix}")
        n = h.shape[1]
        i, f, g, o = gates[:, :n], gates[:, n : 2 * n], gates[:, 2 * n : 3 * n], gates[:, 3 * n :]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def mlp(self, name, x):
        return self.linear(f"{name}.second", torch.relu(self.linear(f"{name}.first", x)))

    def encode_one(self, name, x):
        prefix = f"encoders.of_{name}"
        size = self.p(f"{prefix}.recurrence.weight_hh_l0").shape[1]
        h = c = x.new_zeros(x.shape[0], size)
        for t in range(x.shape[1]):
            h, c = self.cell(f"{prefix}.recurrence", "_l0", x[:, t], h, c)
        return self.linear(f"{prefix}.to_code", h)

    def encode_all(self, features, lengths=None):
        """Z_y; `lengths` (modality -> int) is for a batch of one sample whose modalities end at different steps."""
        batch, steps = next(iter(features.values())).shape[:2]
        some = next(iter(features.values()))
        h, c = {}, {}
        for n in self.names:
            size = self.p(f"fusion.cells.of_{n}.weight_hh").shape[1]
            h[n] = c[n] = some.new_zeros(batch, size)
        history = [torch.cat([c[n] for n in self.names], dim=1)] * self.window
        mem = some.new_zeros(batch, self.p("fusion.attention2.second.bias").shape[0])
        for t in range(steps):
            for n in self.names:
                if lengths is not None and t >= lengths[n]:
                    continue  # the modality is over, or absent: its state is held
                h[n], c[n] = self.cell(f"fusion.cells.of_{n}", "", features[n][:, t], h[n], c[n])
            history = [*history[1:], torch.cat([c[n] for n in self.names], dim=1)]
            c_star = torch.cat(history, dim=1)
            scores = self.mlp("fusion.attention1", c_star)
            if lengths is not None:
                absent = [torch.full((c[n].shape[1],), lengths[n] == 0) for n in self.names]
                scores = scores.masked_fill(torch.cat(absent * self.window), -torch.inf)
            attended = torch.softmax(scores, dim=1) * c_star
            c_hat = torch.tanh(self.mlp("fusion.attention2", attended))
            both = torch.cat([attended, mem], dim=1)
            keep, write = torch.sigmoid(self.mlp("fusion.gate1", both)), torch.sigmoid(self.mlp("fusion.gate2", both))
            mem = keep * mem + write * c_hat
        return self.linear("fusion.to_code", torch.cat([h[n] for n in self.names] + [mem], dim=1))

    def factor(self, prefix, z):
        return torch.relu(self.linear(f"{prefix}.3", torch.relu(self.linear(f"{prefix}.0", z))))

    def decode_one(self, name, f_y, f_i, steps):
        prefix = f"decoders.of_{name}"
        x = torch.cat([f_y, f_i], dim=1)
        h = c = torch.zeros_like(x)
        decoded = []
        for _ in range(steps):
            h, c = self.cell(f"{prefix}.cell", "", x, h, c)
            decoded.append(self.linear(f"{prefix}.output", h))
            x = h
        return torch.stack(decoded, dim=1)

    def forward(self, features):
        z = {n: self.encode_one(n, features[n]) for n in self.names}
        z_y = self.encode_all(features)
        f_y = self.factor("factor_y", z_y)
        prediction = self.linear("head.3", torch.relu(self.linear("head.0", f_y)))
        reconstruction = {
            n: self.decode_one(n, f_y, self.factor(f"factors.of_{n}", z[n]), features[n].shape[1]) for n in self.names
        }
        return prediction, reconstruction, z_y, z


def plain_mmd(z, prior):
    """The authors' MMD, by differences of every pair."""

    def mean_kernel(a, b):
        return torch.exp(-((a[:, None] - b[None]) ** 2).mean(dim=2) / a.shape[1]).mean()

    return mean_kernel(z, z) - 2 * mean_kernel(z, prior) + mean_kernel(prior, prior)


def plain_objective(prediction, target, reconstruction, features, z_y, z, priors, lda, lda_mmd):
    """The authors' loss; `priors` are the draws used for z_y and each z."""
    parts = {"prediction": (prediction - target).abs().mean()}
    for n in sorted(features):
        parts[f"reconstruction/{n}"] = ((reconstruction[n] - features[n]) ** 2).mean()
    parts["mmd/z_y"] = plain_mmd(z_y, priors["z_y"])
    for n in sorted(z):
        parts[f"mmd/{n}"] = plain_mmd(z[n], priors[n])
    total = parts["prediction"]
    for n in features:
        total = total + lda[n] * parts[f"reconstruction/{n}"]
    total = total + lda_mmd * (parts["mmd/z_y"] + sum(parts[f"mmd/{n}"] for n in z))
    return total, parts

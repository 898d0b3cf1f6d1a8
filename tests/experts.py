"""A layer of experts as torch models have it: 8 of them, of which each token takes 2."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

EXPERTS, CHOSEN, HIDDEN, INNER = 8, 2, 64, 96


class Layer(nn.Module):
    """A router, and how its experts are written."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(HIDDEN, EXPERTS, bias=False)

    def forward(self, x):
        tokens = x.reshape(-1, HIDDEN)
        shares, chosen = torch.topk(functional.softmax(self.router(tokens), -1), CHOSEN, -1)
        shares = shares / shares.sum(-1, keepdim=True)
        return self.experts(tokens, shares, chosen).reshape(x.shape)

    def of_all(self, tokens, shares, chosen):
        """The share of each expert: [tokens, experts]."""
        return tokens.new_zeros(tokens.shape[0], EXPERTS).scatter(1, chosen, shares)


class Batched(Layer):
    """One torch.bmm for all experts: [experts, tokens, hidden] by a stack of matrices."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(0.1 * torch.randn(EXPERTS, HIDDEN, 2 * INNER))
        self.down = nn.Parameter(0.1 * torch.randn(EXPERTS, INNER, HIDDEN))

    def experts(self, tokens, shares, chosen):
        repeated = tokens.unsqueeze(0).expand(EXPERTS, -1, -1)
        gate, up = torch.bmm(repeated, self.up).chunk(2, -1)
        found = torch.bmm(functional.silu(gate) * up, self.down)
        return (found * self.of_all(tokens, shares, chosen).t().unsqueeze(-1)).sum(0)


class Summed(Batched):
    """The same stacks in torch.einsum."""

    def experts(self, tokens, shares, chosen):
        gate, up = torch.einsum("tk,ekn->etn", tokens, self.up).chunk(2, -1)
        found = torch.einsum("etn,enk->etk", functional.silu(gate) * up, self.down)
        return torch.einsum("etk,te->tk", found, self.of_all(tokens, shares, chosen))


class Sliced(Layer):
    """Stacks too, but a loop over the experts, each with its matrices of them."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(0.1 * torch.randn(EXPERTS, 2 * INNER, HIDDEN))
        self.down = nn.Parameter(0.1 * torch.randn(EXPERTS, HIDDEN, INNER))

    def experts(self, tokens, shares, chosen):
        found = torch.zeros_like(tokens)
        all_shares = self.of_all(tokens, shares, chosen)
        for index in range(EXPERTS):
            gate, up = functional.linear(tokens, self.up[index]).chunk(2, -1)
            one = functional.linear(functional.silu(gate) * up, self.down[index])
            found = found + one * all_shares[:, index : index + 1]
        return found


class Separate(Layer):
    """A module for each expert, with three matrices, as in Mixtral."""

    def __init__(self):
        super().__init__()
        for name, sizes in {
            "gate": (HIDDEN, INNER),
            "up": (HIDDEN, INNER),
            "down": (INNER, HIDDEN),
        }.items():
            modules = (nn.Linear(*sizes, bias=False) for _ in range(EXPERTS))
            setattr(self, name, nn.ModuleList(modules))

    def experts(self, tokens, shares, chosen):
        found = torch.zeros_like(tokens)
        all_shares = self.of_all(tokens, shares, chosen)
        for index in range(EXPERTS):
            inner = functional.silu(self.gate[index](tokens)) * self.up[index](tokens)
            found = found + self.down[index](inner) * all_shares[:, index : index + 1]
        return found


def export(kind):
    """What torch.onnx.export makes of a layer."""
    torch.manual_seed(0)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    return torch.onnx.export(
        kind().eval(),
        (torch.randn(2, 5, HIDDEN),),
        dynamo=True,
        input_names=["x"],
        dynamic_shapes={"x": sizes},
        verbose=False,
    )


def feeds(count, seed=0):
    """Inputs that are of fewer dimensions in truth, as those of a layer in a model are."""
    generator = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(24, HIDDEN)) / 5
    return [
        {"x": (generator.normal(size=(2, 32, 24)) @ mix).astype(np.float32)} for _ in range(count)
    ]

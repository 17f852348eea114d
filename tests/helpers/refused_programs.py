"""Small programs that are refused, each with the words of its reason."""

from __future__ import annotations

from tests.helpers.field_parts import LINEAR, LOOP, MSE, OWN_OPTIMIZER, SGD, TWO, loss, module, optimizer

NOT_PORTED = "parity cannot port by itself.* Write the JAX side yourself"
OWN_LOSS = "the loss is a loss of its own"
REFUSED = {
    # what parity cannot port by itself: the part, and the line that it stands in
    "Adam": (
        optimizer("torch.optim.Adam(model.parameters())"),
        f"the optimizer is a torch.optim.adam.Adam, which {NOT_PORTED}.*: optimizer.step()",
    ),
    "RMSprop": (
        optimizer("torch.optim.RMSprop(model.parameters())"),
        f"torch.optim.rmsprop.RMSprop, which {NOT_PORTED}",
    ),
    "an optimizer of one's own": (
        OWN_OPTIMIZER + optimizer("Own(model.parameters())"),
        f"the optimizer is a __main__.Own, which {NOT_PORTED}",
    ),
    "several layers": (
        loss(MSE, "model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))" + SGD),
        f"the model is a torch.nn.modules.container.Sequential, which {NOT_PORTED}.*: loss = F.mse_loss",
    ),
    "one layer that is called twice": (
        loss(
            "F.mse_loss(model(y), y)",
            module("self.linear(self.linear(t))", "self.linear = torch.nn.Linear(1, 1)") + SGD,
        ),
        f"the model is a __main__.Model, which {NOT_PORTED}",
    ),
    "one layer whose weight is used beside it": (
        loss(MSE, module("self.linear(t) + self.linear.weight.sum()") + SGD),
        f"the model is a __main__.Model, which {NOT_PORTED}",
    ),
    "functional linear": (
        loss(MSE, module("F.linear(t, self.w)", "self.w = torch.nn.Parameter(torch.zeros(1, 3))") + SGD),
        f"the model is a __main__.Model, which {NOT_PORTED}",
    ),
    "logistic": (
        loss("F.binary_cross_entropy_with_logits(model(x), (y > 0).float())"),
        f"the loss is a torch.nn.functional.binary_cross_entropy_with_logits, which {NOT_PORTED}.*: loss.backward()",
    ),
    "l1": (loss("F.l1_loss(model(x), y)"), "the loss is a torch.nn.functional.l1_loss"),
    "l1 as a class": (loss("torch.nn.L1Loss()(model(x), y)"), "the loss is a torch.nn.modules.loss.L1Loss"),
    "l1 of a module that holds one layer": (
        loss("F.l1_loss(model(x), y)", module("self.linear(t)") + SGD),
        "the loss is a torch.nn.functional.l1_loss",
    ),
    "Huber": (loss("torch.nn.HuberLoss()(model(x), y)"), "the loss is a torch.nn.modules.loss.HuberLoss"),
    "smooth l1": (loss("torch.nn.SmoothL1Loss()(model(x), y)"), "the loss is a torch.nn.modules.loss.SmoothL1Loss"),
    "absolute mean": (loss("(model(x) - y).abs().mean()"), OWN_LOSS + r" \(sub\(predictions, target0\) then abs"),
    "matrix product": (
        loss("((model(x) - y).T @ (model(x) - y)).squeeze()"),
        "one loss is taken of 2 calls of Linear. Call it once, with the rows of all",
    ),
    "mean of no reduction": (
        loss("F.mse_loss(model(x), y, reduction='none').mean()"),
        OWN_LOSS + r" \(mse_loss\(.*reduction='none'\) then mean",
    ),
    "root of the mean": (loss("F.mse_loss(model(x), y).sqrt()"), OWN_LOSS + ".* then sqrt"),
    "weighted": (loss("(torch.ones(8, 1) * (model(x) - y) ** 2).mean()"), OWN_LOSS + ".* then mul"),
    "norm": (loss("(model(x) - y).norm() ** 2"), OWN_LOSS + ".* then norm"),
    "two losses": (
        loss("F.mse_loss(out := model(x), y) + 0.1 * F.l1_loss(out, y)"),
        OWN_LOSS + ".*mse_loss.* then l1_loss",
    ),
    "a part of the output": (
        loss("F.mse_loss(model(x)[:, 0], y[:, 0])"),
        OWN_LOSS + r" \(predictions\[:, 0\] then mse_loss",
    ),
    "clipped by norm": (
        loss(MSE).replace(
            "optimizer.step", "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n    optimizer.step"
        ),
        f"clipped to a norm of 1 together, which {NOT_PORTED}",
    ),
    "clipped by value": (
        loss(MSE).replace(
            "optimizer.step", "torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)\n    optimizer.step"
        ),
        f"clipped to ±1 each, which {NOT_PORTED}",
    ),
    "broadcast": (
        loss("F.mse_loss(model(x), y[:, 0])"),
        r"MSELoss broadcasts predictions \(8, 1\) against targets \(8,\)",
    ),
    # gradients and steps of another kind
    "autograd.grad": (
        loss(MSE).replace(
            "loss.backward()",
            "model.weight.grad, model.bias.grad = torch.autograd.grad(loss, [model.weight, model.bias])",
        ),
        r"the gradients come from torch\.autograd\.grad\(\).* Call loss\.backward\(\).*: optimizer\.step\(\)$",
    ),
    "bfloat16": (
        loss(MSE).replace("    loss =", "    with torch.autocast('cpu', dtype=torch.bfloat16):\n        loss ="),
        r"in Linear, there is a tensor of torch\.bfloat16, which NumPy.* leave out torch\.autocast.*: loss =",
    ),
    "bfloat16 buffers": (
        loss(
            "F.mse_loss(model(x.bfloat16()), y.bfloat16())",
            "model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).bfloat16()" + SGD,
        ),
        r"in Sequential, there is a tensor of torch\.bfloat16",
    ),
    "sparse gradients": (
        loss(
            "F.mse_loss(model(torch.arange(3)), torch.ones(3, 1))",
            "model = torch.nn.Embedding(3, 1, sparse=True)" + SGD,
        ),
        r"a tensor of layout torch\.sparse_coo.* with sparse=False",
    ),
    "GradScaler": (
        loss(MSE, LINEAR + SGD + "scaler = torch.amp.GradScaler('cpu')\n")
        .replace("loss.backward()", "scaler.scale(loss).backward()")
        .replace("optimizer.step()", "scaler.step(optimizer); scaler.update()"),
        r"torch\.amp\.GradScaler steps the optimizer.* Make it with enabled=False.*: scaler\.step\(optimizer\)",
    ),
    "LBFGS": (
        LINEAR + "optimizer = torch.optim.LBFGS(model.parameters())\noptimizer.step(lambda: F.mse_loss(model(x), y))\n",
        r"LBFGS calls its closure several times a step.* such as torch\.optim\.SGD or torch\.optim\.Adam.*line 10",
    ),
    "a closure": (
        LINEAR + SGD + "optimizer.step(lambda: None)\n",
        r"is given a closure.* SGD needs none: call closure\(\) first, and then optimizer\.step\(\)",
    ),
    "a branch that leaves one out": (
        loss(
            "F.mse_loss((a(x) + b(x)) if _ else a(x), y)",
            "a, b = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)\nmodel = torch.nn.ModuleList([a, b])" + SGD,
        ),
        "the optimizer holds 2 parameters that no recorded module owns: the loss was taken of Linear, which has 2",
    ),
    "a branch inside that leaves one out": (
        loss(
            "F.mse_loss(model(x), y)",
            module(
                "self.a(t) + self.b(t) if next(self.turns) else self.a(t)",
                "self.a, self.b, self.turns = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1), iter([0, 1, 1])",
            )
            + SGD,
        ),
        r"b\.bias, b\.weight had no gradient at step 0 and one now: the loss does not use the same.* times 0",
    ),
    "a parameter frozen on the way": (
        loss(MSE) + "    model.bias.requires_grad_(False)\n",
        "bias is frozen or freed on the way. Record the stretches one by one",
    ),
    "gradients never cleared": (
        loss(MSE).replace("optimizer.zero_grad()", ""),
        r"gradients of earlier steps are added up\. Call optimizer\.zero_grad\(\)",
    ),
    "a gradient changed by hand": (
        loss(MSE).replace("optimizer.step", "model.weight.grad *= 0.5\n    optimizer.step"),
        r"the gradient of weight is changed between backward\(\) and optimizer\.step\(\)",
    ),
    "weights put back": (
        loss(MSE, LINEAR + SGD + "import copy\nbest = copy.deepcopy(model.state_dict())")
        + "    model.load_state_dict(best)\n",
        "weight was changed since the last step, outside the optimizer.* load and change weights before the first step",
    ),
    "weights moved by hand": (
        loss(MSE, LINEAR)
        .replace("    optimizer.zero_grad()\n", "    model.zero_grad()\n")
        .replace("optimizer.step()", "\n    with torch.no_grad():\n        model.weight -= 0.1 * model.weight.grad"),
        r"never stepped an optimizer\. It calls backward\(\), .* write that as torch\.optim\.SGD.*: loss\.back",
    ),
    "OneCycleLR": (
        loss(
            MSE,
            LINEAR + "optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)\n"
            "plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)\n",
        )
        + "    plan.step()\n",
        "the optimizer's momentum changes.* with cycle_momentum=False",
    ),
    # several optimizers and models
    "an optimizer an epoch": (
        loss(MSE) + SGD + LOOP.format(loss=MSE),
        "a new SGD for the same parameters takes the step. Make the optimizer once",
    ),
    "two optimizers of one loss": (
        loss(
            MSE,
            LINEAR
            + "optimizer, other = torch.optim.SGD([model.weight], lr=0.1), torch.optim.SGD([model.bias], lr=0.1)\n",
        )
        + "    other.step()\n    other.zero_grad()\n",
        r"SGD steps after a backward\(\) whose gradients SGD has used.* Give all parameters to one.*: other\.step\(\)$",
    ),
    "two optimizers in turn": (
        LINEAR
        + "".join(
            f"optimizer = torch.optim.SGD([model.{name}], lr=0.1)" + LOOP.format(loss=MSE)
            for name in ("weight", "bias")
        ),
        "another SGD than at step 0 takes the step, for other parameters of the model.* Give all parameters to one",
    ),
    "two trainings": (
        "for seed in (0, 1):" + loss(MSE).replace("\n", "\n    "),
        "another optimizer takes the step, and trains another model, a Linear: a second training in one program",
    ),
    "another model at a later step": (
        loss("F.mse_loss((model if _ < 2 else other)(x), y)", LINEAR + "other = torch.nn.Linear(3, 1)" + SGD),
        "the loss is taken of a Linear, and at step 0 it was of a Linear: another module",
    ),
    "a GAN": (
        "maker, judge = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)\noptimizer = torch.optim.Adam(maker.parameters())"
        + LOOP.format(loss="judge(maker(x)).mean()"),
        "the loss is taken of what a Linear gave, and the optimizer trains Linear, which.* as in a GAN, cannot be",
    ),
    "a GAN, the judge first": (
        "maker, judge = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)\noptimizer = torch.optim.Adam(judge.parameters())"
        + LOOP.format(loss="judge(torch.cat([x, maker(x).detach()])).mean()")
        + "optimizer = torch.optim.Adam(maker.parameters())"
        + LOOP.format(loss="judge(maker(x)).mean()"),
        "another optimizer than at step 0 takes the step, for other parameters.* as in a GAN",
    ),
    "plain tensors": (
        loss(
            "((x @ w - y) ** 2).mean()",
            "w = torch.zeros(3, 1, requires_grad=True)\noptimizer = torch.optim.SGD([w], lr=0.1)",
        ),
        r"nor plain tensors\. Call the model, or make the tensors a torch\.nn\.Module's parameters",
    ),
    "a penalty": (
        loss(MSE + " + 0.1 * model.weight.abs().sum()"),
        "compute it inside the model and return it beside the output; a penalty on squared weights can be",
    ),
    "NumPy inside the model": (
        loss(
            MSE,
            "import numpy\n"
            + module("self.linear(t) + F.linear(torch.from_numpy(numpy.ones((8, 3), 'f')), self.linear.weight)")
            + SGD,
        ),
        r"fails when it is run again in float64: RuntimeError.* Make its tensors in the dtype.*: return self\.linear",
    ),
    "a call that uses something up": (
        loss(MSE, module("self.a(t) + next(self.turns) * self.b(t)", "self.turns = iter([0, 1, 1]); " + TWO) + SGD),
        "fails when it is run again in float64: StopIteration.* nothing may be used up by a call.*: return self",
    ),
    "Python's random in the model": (
        loss(MSE, "import random\n" + module("self.a(t) + random.random() * self.b(t)", TWO) + SGD),
        "Model, by Python's or NumPy's random, draws random numbers in the training.* draw them outside the model",
    ),
    "a scripted module": (
        loss(MSE, "model = torch.jit.script(torch.nn.Linear(3, 1))" + SGD),
        "the model is a scripted module",
    ),
    "lazy": (loss(MSE, "model = torch.nn.LazyLinear(1)" + SGD), "weights are made in its first call"),
}

# What is refused however it is recorded.
STILL_REFUSED = {
    "a GAN", "a GAN, the judge first", "GradScaler", "LBFGS", "OneCycleLR", "an optimizer an epoch",
    "an optimizer of one's own", "another model at a later step", "bfloat16", "bfloat16 buffers",
    "broadcast", "a closure", "a gradient changed by hand", "a parameter frozen on the way", "a scripted module",
    "gradients never cleared", "sparse gradients", "two optimizers in turn", "two optimizers of one loss",
    "two trainings", "weights put back",
}  # fmt: skip

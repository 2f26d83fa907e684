-- Forty questions that people asked in public about gradients that were not there, each as the
-- smallest program with the same mistake; what the engine says must hold the code, the line and the
-- words that would have helped. The numbers are those of the collection.
local script = require "spec.script"

local run, holds = script.run, script.holds

---Runs train.lua, which returns nil and a reason (or a reason); checks code, line and words.
local function told(text, code, where, ...)
  local first, why = run("train.lua", text)
  why = why or first
  assert.equal(code, why.code, why.message)
  assert.equal(where, why.where, why.message)
  holds(why.message, "[" .. code .. "]", ...)
  return why
end

---Runs train.lua, which must fail at that line with these words.
local function refused(text, where, ...)
  local message = script.error("train.lua", text)
  holds(message, where, ...)
  return message
end

describe("A. none, and no gradients provided", function()
  it("1: the blocking operation is named, or that there is none", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local loss = lt.stop_gradient(w * 2):sum()
      return tape:explain(loss, w)
    ]], "stopped", "train.lua:3", "stop_gradient at train.lua:3", "w")
  end)

  it("2: no path between the variable and the loss", function()
    told([[
      local w, x = lt.variable({{1, 2}, {3, 4}}, {name = "w"}), lt.ones(1, 2)
      local tape <close> = lt.tape()
      local hidden = x:matmul(w)
      local loss = (x * 3):sum()
      return tape:gradient(loss, w)
    ]], "dead-end", "train.lua:3", "last by matmul at train.lua:3", "does not reach the target")
  end)

  it("3: the loss was computed before minimize called the function", function()
    holds(refused([[
      local w = lt.variable({1, 2}, {name = "w"})
      local opt = lt.optim.Adam{lr = 0.1}
      local cost = (w * w):sum()
      opt:minimize(function() return cost end, {w})
    ]], "train.lua:4", "[outside-tape]"), "mul at train.lua:3", "opt:minimize(f, vars)")
    refused([[
      local w = lt.variable({1, 2}, {name = "w"})
      lt.optim.Adam{lr = 0.1}:minimize((w * w):sum(), {w})
    ]], "train.lua:2", "takes a function that computes the loss", "[outside-tape]")
  end)

  it("4: model(x) before the tape", function()
    local why = told([[
      local model = lt.nn.Sequential{lt.nn.Linear(2, 2), lt.nn.ReLU()}
      local prediction = model(lt.ones(1, 2))
      local tape <close> = lt.tape()
      local loss = (prediction ^ 2):mean()
      return tape:gradient(loss, model:parameters()[1])
    ]], "outside-tape", "train.lua:2", "1.weight was last used by linear at train.lua:2",
      "before this tape was opened at train.lua:3", "Move the call at train.lua:2")
    assert.equal("linear", why.op)
  end)

  it("5: f(x) after the tape was closed", function()
    told([[
      local x = lt.variable({1, 2}, {name = "x"})
      local function f(v) return (v * v):sum() end
      local tape = lt.tape()
      f(x)
      tape:close()
      return tape:explain(f(x), x)
    ]], "outside-tape", "train.lua:2", "after this tape was closed")
  end)

  it("6: the prediction left as plain numbers", function()
    local why = told([[
      local w = lt.variable({1.25, 2.5}, {name = "w"})
      local tape <close> = lt.tape()
      local numbers = (w * 3):totable()
      local loss = (lt.tensor(numbers) - 1):sum()
      return tape:gradient(loss, w)
    ]], "left-tensors", "train.lua:3", "read as a plain number by totable at train.lua:3",
      "Compute with the tensor itself")
    assert.equal("totable", why.op)
  end)

  it("7: the loss was computed from numbers", function()
    told([[
      local w = lt.variable(1.75, {name = "w"})
      local tape <close> = lt.tape()
      local error = w:item() * lt.ones(2)
      return tape:gradient(error:sum(), w)
    ]], "left-tensors", "train.lua:3", "item at train.lua:3")
  end)

  it("8: a function of the host's in the middle, element by element", function()
    told([[
      local w = lt.variable({0.3, 0.6}, {name = "w"})
      local function outside(t) return lt.tensor{t:get(1), t:get(2)} end
      local tape <close> = lt.tape()
      return tape:gradient(outside(w):sum(), w)
    ]], "left-tensors", "train.lua:2", "get at train.lua:2")
  end)

  it("9: assign_add to a variable carries no gradient", function()
    told([[
      local v, x = lt.variable(1, {name = "v"}), lt.variable(3, {name = "x"})
      local tape <close> = lt.tape()
      v:assign_add(x)
      local loss = v * v
      return tape:gradient(loss, x)
    ]], "assigned", "train.lua:3", "write in place at train.lua:3", "carries no gradient")
  end)

  it("10: a write inside a model", function()
    told([[
      local w, buffer = lt.variable({1, 2}, {name = "w"}), lt.zeros(2)
      local function model(x) buffer:assign(w * x); return buffer * 2 end
      local tape <close> = lt.tape()
      return tape:gradient(model(lt.ones(2)):sum(), w)
    ]], "assigned", "train.lua:2", "train.lua:2")
  end)

  it("11: argmax, with or without a cast behind it", function()
    local why = told([[
      local w = lt.variable({{1, 3}, {2, 0}}, {name = "w"})
      local tape <close> = lt.tape()
      local best = w:argmax(2)
      return tape:gradient(best:to("float32"):mean(), w)
    ]], "nondiff-op", "train.lua:3", "argmax at train.lua:3 has no gradient", "softmax")
    assert.equal("argmax", why.op)
    refused([[
      local w = lt.variable({{1, 3}, {2, 0}}, {name = "w"})
      local tape <close> = lt.tape()
      return tape:gradient(w:argmax(2), w)
    ]], "train.lua:3", "the target is int64", "[int-dtype]")
  end)

  it("12: a threshold by a cast", function()
    told([[
      local w = lt.variable({0.2, 1.7}, {name = "w"})
      local tape <close> = lt.tape()
      local hard = w:to("int32"):to("float32")
      return tape:gradient(hard:sum(), w)
    ]], "int-cast", "train.lua:3", "to at train.lua:3", "integer")
  end)

  it("13: watched after its use", function()
    told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local y = x * x
      tape:watch(x)
      return tape:gradient(y, x)
    ]], "late-watch", "train.lua:4", "x was watched at train.lua:4 only after its use")
  end)

  it("14: zeros for absent variables, if one asks for them", function()
    local g, why = run("train.lua", [[
      local a, b = lt.variable{1, 2}, lt.variable({3, 4, 5}, {name = "b"})
      local tape <close> = lt.tape{persistent = true}
      local y = (a * a):sum()
      return tape:gradient(y, b, {unconnected_gradients = "zero"}), tape:explain(y, b)
    ]])
    assert.same({ 0, 0, 0 }, g:totable())
    assert.equal("unused", why.code)
    assert.equal("train.lua:2", why.where)
  end)

  it("15: there is a minimize", function()
    local loss, report = run("train.lua", [[
      local w = lt.variable({1, 2}, {name = "w"})
      return lt.optim.SGD{lr = 0.1}:minimize(function() return (w * w):sum() end, {w})
    ]])
    assert.equal(5, loss:item())
    assert.equal("ok", report.w.status)
  end)

  it("16: the loss is a number", function()
    refused([[
      local w = lt.variable({1, 2}, {name = "w"})
      local function loss_fn() return (w * w):sum():item() end
      lt.optim.SGD{lr = 0.1}:minimize(loss_fn, {w})
    ]], "train.lua:3", "must return the loss as a tensor, got ", "number", "item()",
      "[left-tensors]")
  end)

  it("17: one call owns gradient and step", function()
    run("train.lua", [[
      local w = lt.variable({1, 2}, {name = "w"})
      local opt = lt.optim.SGD{lr = 0.25, params = {w}}
      opt:minimize(function() return (w * w):sum() end)
      assert(w:get(2) == 1 and opt.step == 1)
    ]])
  end)

  it("18: a head whose output never reaches the loss", function()
    local warned = {}
    local gs, head, moved = run("train.lua", [[
      local body, head = lt.nn.Linear(2, 2), lt.nn.Linear(2, 1)
      local vars = {body = body:parameters(), head = head:parameters()}
      local tape <close> = lt.tape()
      local hidden = body(lt.ones(1, 2))
      local unused = head(hidden)
      local gs = tape:gradient(hidden:sum(), vars)
      return gs, head, lt.optim.SGD{lr = 0.1}:apply_gradients(gs, vars)
    ]], { warn = function(...) warned[#warned + 1] = table.concat({ ... }) end })
    assert.is_true(moved)
    local why = gs:why(head.weight)
    assert.equal("dead-end", why.code)
    assert.equal("train.lua:5", why.where)
    holds(why.message, "linear at train.lua:5", "does not reach the target")
  end)

  it("19: what is cut on purpose does not warn, and is told when asked", function()
    local warned, before = 0, warn
    warn = function() warned = warned + 1 end -- luacheck: ignore
    local ok, gs, w = pcall(run, "train.lua", [[
      local w, v = lt.variable({1, 2}, {name = "w"}), lt.variable({3, 4}, {name = "v"})
      local tape <close> = lt.tape()
      local gs = tape:gradient((lt.stop_gradient(w) * v):sum(), {w, v})
      lt.optim.SGD{lr = 0.1}:apply_gradients(gs, {w, v})
      return gs, w
    ]])
    warn = before -- luacheck: ignore
    assert.is_true(ok, gs)
    assert.equal(0, warned)
    assert.equal("stopped", gs:why(w).code)
  end)

  it("20: no bare error: names and reasons", function()
    refused([[
      local w = lt.variable({1, 2}, {name = "policy.weight"})
      local tape <close> = lt.tape()
      local gs = tape:gradient(lt.ones(2):sum(), {w})
      lt.optim.Adam{lr = 0.1}:apply_gradients(gs, {w})
    ]], "train.lua:4", "no gradients provided for any variable", "'policy.weight'", "[unused]",
      "opened at train.lua:2")
  end)

  it("21: a variable of another model's", function()
    local message = refused([[
      local a, b = lt.variable({1, 2}, {name = "a"}), lt.variable({3, 4}, {name = "b.weight"})
      local opt = lt.optim.SGD{lr = 0.1, params = {a}}
      local tape <close> = lt.tape()
      local gs = tape:gradient((b * b):sum(), {b})
      opt:apply_gradients(gs, {b})
    ]], "train.lua:5", "'b.weight'", "[foreign")
    assert.is_nil(message:find("6", 1, true))
  end)

  it("22: a name and where it was used, by default", function()
    told([[
      local w = lt.variable({0.1, 0.9}, {name = "dense_W"})
      local function auc(score) return score:ge(0.5):to("float32"):mean() end
      local tape <close> = lt.tape()
      return tape:gradient(auc(w), w)
    ]], "nondiff-op", "train.lua:2", "'dense_W'", "ge at train.lua:2", "sigmoid")
  end)
end)

describe("B. no grad_fn, backward twice, in place", function()
  it("23: the message names the tensor and the reason", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local loss = w:detach():sum()
      loss.name = "loss"
      return tape:gradient(loss, w)
    ]], "stopped", "train.lua:3", "no gradient of 'loss' with respect to 'w'", "detach")
  end)

  it("24: no flag on the loss is suggested: where the chain was cut is shown", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local loss = lt.tensor((w * w):sum():item())
      return tape:gradient(loss, w)
    ]], "left-tensors", "train.lua:3", "item at train.lua:3")
    assert.is_nil(why.message:find "watch")
  end)

  it("25: a loss that depends on nothing is no silent success", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local loss = lt.tensor(3.0625)
      return tape:gradient(loss, w)
    ]], "unused", "train.lua:2", "The target is a constant, made by tensor at train.lua:3")
  end)

  it("26: unused is told from used in vain", function()
    local unused, dead = run("train.lua", [[
      local a, b, c = lt.variable(1), lt.variable(2), lt.variable(3)
      local tape <close> = lt.tape()
      local dropped = b * 2
      local loss = c * c
      tape:stop()
      return tape:explain(loss, a), tape:explain(loss, b)
    ]])
    assert.same({ "unused", "train.lua:2" }, { unused.code, unused.where })
    assert.same({ "dead-end", "train.lua:3" }, { dead.code, dead.where })
  end)

  it("27: an overwritten value: the tensor, who saved it and who overwrote it", function()
    refused([[
      local x = lt.variable({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local y = x * x
      x:assign{0, 0}
      tape:gradient(y, x)
    ]], "train.lua:5", "'x'", "mul at train.lua:3", "overwritten in place at train.lua:4",
      "[overwritten]")
  end)

  it("28: the writer is found in another file", function()
    local spoil = script.run("layers.lua", "return function(t)\n  t:assign_add(1)\nend")
    local message = script.error("train.lua", [[
      local x = lt.variable({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local y = (x ^ 2):sum()
      spoil(x)
      tape:gradient(y, x)
    ]], { spoil = spoil })
    holds(message, "train.lua:5", "at train.lua:3", "overwritten in place at layers.lua:2")
  end)

  it("29: a write to a recorded value is refused before anything is written", function()
    run("train.lua", [[
      local x = lt.variable{1, 2}
      local tape <close> = lt.tape()
      local h = x * 2
      local ok, message = pcall(function() h[1] = 5 end)
      assert(not ok and message:find("tape opened at train.lua:2", 1, true), message)
      assert(message:find("train.lua:4", 1, true) and message:find("[assigned]", 1, true), message)
      assert(h:get(1) == 2 and tape:gradient(h, x):get(1) == 2)
    ]])
  end)

  it("30: the hidden state carried into the next iteration", function()
    refused([[
      local w, h = lt.variable({{1, 0}, {0, 1}}, {name = "w"}), lt.ones(1, 2)
      local tape = lt.tape()
      h = h:matmul(w)
      tape:gradient(h:sum(), w)
      tape:gradient(h:sum(), w)
    ]], "train.lua:5", "used up at train.lua:4", "persistent = true", "[consumed]")
    local why = told([[
      local w, h, why = lt.variable({{1, 0}, {0, 1}}, {name = "w"}), lt.ones(1, 2), nil
      for i = 1, 2 do
        local tape <close> = lt.tape()
        h = (h:matmul(w)):tanh()
        why = tape:explain(h:sum(), w)
      end
      return why
    ]], "partial", "train.lua:4", "reaches the target by 1 path", "matmul at train.lua:4")
    assert.equal("other-tape", why.cuts[1].code)
  end)

  it("31: steps by hand are allowed, in place and outside of the tape", function()
    local w = run("train.lua", [[
      local w = lt.variable({1, 2}, {name = "w"})
      for _ = 1, 2 do
        local tape <close> = lt.tape()
        local g = tape:gradient((w * w):sum(), w)
        w:assign_sub(g * 0.25)
      end
      return w
    ]])
    assert.same({ 0.25, 0.5 }, w:totable())
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local g, why
      for _ = 1, 2 do
        local tape <close> = lt.tape()
        g, why = tape:gradient((w * w):sum(), w)
        if g then w = w - g * 0.25 end
      end
      return g, why
    ]], "rebound", "train.lua:6", "another object than the variable", "assign_sub")
  end)

  it("32: missing is not zero: no decay, no momentum, and the report says which", function()
    local report, b = run("train.lua", [[
      local a, b = lt.variable({1, 2}, {name = "a"}), lt.variable({3, 4}, {name = "b"})
      local opt = lt.optim.SGD{lr = 0.1, weight_decay = 0.5, momentum = 0.9, params = {a, b}}
      local _, report = opt:minimize(function() return (a * a):sum() + (b * 0):sum():detach() end)
      return report, b
    ]])
    assert.same({ 3, 4 }, b:totable())
    assert.same({ "ok", "missing" }, { report.a.status, report.b.status })
    holds(report.b.reason, "'b'", "detach at train.lua:3", "[stopped]")
  end)

  it("33: hints are Lua, naming Lua lines", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local y = w * w
      local tape <close> = lt.tape()
      return tape:gradient(y, w)
    ]], "outside-tape", "train.lua:2", "lt.tape()", "opt:minimize(f, vars)")
    for _, foreign in ipairs{ "requires_grad", "retain_graph", "GradientTape", "grad_fn" } do
      assert.is_nil(why.message:find(foreign, 1, true))
    end
  end)
end)

describe("C. NaN, Inf and zero", function()
  it("34: the first producer of a NaN, not the last", function()
    local why = told([[
      local x = lt.variable({1, 4}, {name = "x"})
      local tape <close> = lt.tape()
      local y = lt.sqrt(x - 2)
      local loss = (y * 3 + 1):sum()
      local g = tape:gradient(loss, x)
      return tape:explain(loss, x)
    ]], "nonfinite", "train.lua:3", "sqrt")
    assert.equal("sqrt", why.op)
    assert.equal("forward", why.phase)
    assert.same({ 1 }, type(why.element) == "table" and why.element or { why.element })
  end)

  it("35: Inf is found as well as NaN", function()
    local why = told([[
      local x = lt.variable({1, 200}, {name = "x"})
      local tape <close> = lt.tape()
      local y = lt.exp(x)
      local loss = (y * 2):sum()
      local g = tape:gradient(loss, x)
      return tape:explain(loss, x)
    ]], "nonfinite", "train.lua:3", "exp")
    assert.equal("forward", why.phase)
  end)

  it("36: a NaN that only the backward walk makes", function()
    local why = told([[
      local x = lt.variable({0, 1}, {name = "x"})
      local tape <close> = lt.tape()
      local y = (lt.sqrt(x) * 0):sum()
      local g = tape:gradient(y, x)
      return tape:explain(y, x)
    ]], "nonfinite", "train.lua:3", "sqrt")
    assert.equal("backward", why.phase)
  end)

  it("37: the trap of where: 0 times Inf in the branch that was not taken", function()
    local why = told([[
      local x = lt.variable({0, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local inner = lt.log(x)
      local y = lt.where(x:gt(0), inner, lt.zeros(2)):sum()
      local g = tape:gradient(y, x)
      return tape:explain(y, x)
    ]], "nonfinite", "train.lua:3", "log", "where")
    assert.equal("backward", why.phase)
    assert.equal("log", why.op)
  end)

  it("38: a zero gradient: which op blocked it, and how much of it", function()
    local why = told([[
      local w = lt.variable({-1, -2}, {name = "w"})
      local tape <close> = lt.tape()
      local y = lt.relu(w)
      local loss = (y * 3):sum()
      local g = tape:gradient(loss, w)
      return tape:explain(loss, w)
    ]], "zero", "train.lua:3", "relu", "100")
    assert.equal("relu", why.because)
    assert.equal("relu", why.op)
  end)

  it("39: all gradients zero shows in the report", function()
    local report = run("train.lua", [[
      local w = lt.variable({-1, -2}, {name = "w"})
      local _, report = lt.optim.SGD{lr = 0.1}:minimize(function() return lt.relu(w):sum() end, {w})
      return report
    ]])
    assert.equal("zero", report.w.status)
    holds(report.w.reason, "relu", "train.lua:2")
  end)

  it("40: a node keeps the line that made it; nothing ends in a raw error of Lua's", function()
    refused([[
      local w = lt.variable({1, 2}, {name = "w"})
      lt.optim.SGD{lr = 0.1}:minimize(function() local y = w * w end, {w})
    ]], "train.lua:2", "must return the loss as a tensor, got n")
    refused("lt.grad(function(x) local y = x * x end)(lt.ones(2):sum())", "train.lua:1", "grad: ")
    local message = refused([[
      local tape = lt.tape()
      tape:gradient(nil, lt.ones(2))
    ]], "train.lua:2", "gradient: ")
    assert.is_nil(message:find "attempt to")
  end)
end)

-- Gradients with NaN or Inf: the first op that made one, its line, the element and the operands.
local lt = require "luatape"

local function here(n) return "spec/nonfinite_spec.lua:" .. n end
local function line() return debug.getinfo(2, "l").currentline end
local function variable(...) return lt.variable({ ... }, { name = "w", dtype = "float64" }) end
local inf, nan = 1 / 0, 0 / 0

local function ask(w, f)
  local tape = lt.tape()
  local y = f(w)
  local g, why = tape:gradient(y, w)
  assert.is_false(lt.isfinite(g):all():item())
  assert.truthy(why, "no reason was given")
  assert.equal("nonfinite", why.code)
  assert.truthy(tostring(why):find("[nonfinite]", 1, true))
  assert.equal(why.message, tape:explain(y, w).message)
  return why
end

--- wanted: phase, op, line, element, operands
local function check(wanted, f, ...)
  local why = ask(variable(...), f)
  assert.equal(wanted[1], why.phase)
  assert.equal(wanted[2], why.op)
  assert.equal(here(wanted[3]), why.where)
  assert.same(wanted[4], why.element)
  for i, x in ipairs(wanted[5]) do assert.equal(x, why.operands[i]) end
  assert.equal(#wanted[5], #why.operands)
  assert.truthy(why.message:find(wanted[2] .. " at " .. here(wanted[3]), 1, true))
  return why
end

describe("a gradient that is not finite, from the forward pass", function()
  it("of log(0), 0/0, 1/0, sqrt(-1) and exp overflow", function()
    local why = check({ "forward", "log", line() + 1, { 2 }, { 0 } },
      function(w) return w:log():sum() end, 1, 0, 3)
    assert.equal(-inf, why.operands.result)
    assert.truthy(why.message:find("x = 0", 1, true))
    assert.truthy(why.message:find("[2]", 1, true))
    check({ "forward", "div", line() + 1, { 2 }, { 0, 0 } },
      function(w) return (w / lt.tensor { 1, 0, 2 }):sum() end, 1, 0, 3)
    check({ "forward", "div", line() + 1, { 3 }, { 1, 0 } },
      function(w) return (1 / w):sum() end, 1, 2, 0)
    check({ "forward", "sqrt", line() + 1, { 1 }, { -4 } },
      function(w) return w:sqrt():sum() end, -4, 2)
    check({ "forward", "exp", line() + 1, { 2 }, { 1000 } },
      function(w) return w:exp():sum() end, 0, 1000)
  end)

  it("names the first producer, not those that passed it on", function()
    local at = line() + 3
    check({ "forward", "log", at, { 2 }, { 0 } }, function(w)
      local h = w - 1 -- not saved: made again
      local y = h:log()
      y = y:reshape(2):abs() * 2
      return (y * y):exp():sum()
    end, 2, 1)
  end)

  it("gives the element of tensors with several dimensions", function()
    local w = lt.variable({ { 1, 2, 3 }, { 4, 0, 6 } }, { name = "w" })
    local why = ask(w, function(x) return (x:log():sum(1) ^ 2):sum() end)
    assert.same({ 2, 2 }, why.element)
    assert.same({ 0.0 }, { why.operands[1] })
    assert.truthy(why.message:find("[2, 2]", 1, true))
  end)

  it("says when a variable, a tensor or a number is not finite itself", function()
    local why = ask(variable(1, inf, 3), function(w) return (w * w):sum() end)
    assert.equal("forward", why.phase)
    assert.truthy(why.message:find("the variable 'w' itself holds inf at element [2]", 1, true))
    assert.same({ 2 }, why.element)
    why = ask(variable(1, 2, nan), function(w) return w:exp():sum() end)
    assert.truthy(why.message:find("'w' itself holds nan at element [3]", 1, true))
    local at = line() + 1
    local x = lt.tensor({ 1.37, inf, 3.91 }, { name = "x" })
    why = ask(variable(1, 2, 3), function(w) return (w * x):sum() end)
    assert.equal(here(at), why.where)
    assert.truthy(why.message:find("the tensor 'x' itself holds inf", 1, true))
    at = line() + 1
    why = ask(variable(1, 2), function(w) return (w * inf):sum() end)
    assert.equal(here(at), why.where)
    assert.equal("mul", why.op)
  end)

  it("names the write that put it into a variable", function()
    local w = variable(1, 2)
    local at = line() + 1
    w:assign(lt.tensor { 1.73, inf })
    local why = ask(w, function(x) return (x * x):sum() end)
    assert.equal(here(at), why.where)
  end)
end)

describe("a gradient that is not finite, from the backward pass", function()
  it("of sqrt(0) and pow", function()
    local why = check({ "backward", "sqrt", line() + 1, { 2 }, { 0 } },
      function(w) return w:sqrt():sum() end, 1, 0)
    assert.equal(1, why.operands.dy)
    assert.truthy(why.message:find("dy = 1", 1, true))
    check({ "backward", "pow", line() + 1, { 1 }, { 0, 0.5 } },
      function(w) return (w ^ 0.5):sum() end, 0, 4)
    check({ "backward", "sqrt", line() + 1, { 2 }, { 0 } },
      function(w) return ((w - 1):sqrt() * 3):sum() end, 2, 1)
  end)

  it("of weights that are not finite, and of sums that overflow", function()
    local w = variable(1, 2)
    local tape = lt.tape()
    local y = w * 2
    local _, why = tape:gradient(y, w, { output_gradients = lt.tensor({ 1, nan }, { dtype = "float64" }) })
    assert.equal("backward", why.phase)
    assert.matches("output_gradients", why.message)
    why = ask(variable(1), function(x)
      local h = x * 1
      return h * 1e308 + h * 1e308
    end)
    assert.equal("backward", why.phase)
    assert.matches("add up", why.message)
  end)

  it("of a custom gradient, which is not called again", function()
    local calls = 0
    local f = lt.custom_gradient(function(x)
      return x * 2, function(dy)
        calls = calls + 1
        return dy * nan
      end
    end)
    local at = line() + 1
    local why = ask(variable(1, 2), function(w) return f(w):sum() end)
    assert.equal(1, calls)
    assert.equal("custom_gradient", why.op)
    assert.equal(here(at), why.where)
  end)

  it("inside a checkpoint", function()
    local at
    local why = ask(variable(1, 0), function(w)
      return lt.checkpoint(function(x)
        at = line() + 1
        return x:sqrt()
      end, w):sum()
    end)
    assert.equal("sqrt", why.op)
    assert.equal(here(at), why.where)
    assert.same({ 2 }, why.element)
  end)
end)

describe("the trap of 0 * inf", function()
  local function trap(phase, op, at, mask, f, ...)
    local why = check({ phase, op, at, { 2 }, { 0 } }, f, ...)
    assert.truthy(why.message:find(mask .. " at " .. here(at), 1, true))
    assert.truthy(why.message:find("multiplied by 0", 1, true))
    assert.truthy(why.message:find(op .. "(where(mask, x, 1))", 1, true))
  end

  it("is named for where", function()
    trap("backward", "sqrt", line() + 1, "where",
      function(w) return lt.where(w:gt(0), w:sqrt(), 0):sum() end, 1, 0, 3)
    trap("backward", "log", line() + 1, "where",
      function(w) return lt.where(w:gt(0), w:log(), 0):sum() end, 1, 0, 3)
  end)

  it("is named for a product with a mask", function()
    trap("backward", "sqrt", line() + 1, "mul",
      function(w) return (w:gt(0):to("float64") * w:sqrt()):sum() end, 1, 0, 3)
    trap("forward", "log", line() + 1, "mul", -- 0 * -inf is nan already there
      function(w) return (w:gt(0):to("float64") * w:log()):sum() end, 1, 0, 3)
  end)

  it("is named for masked_fill", function()
    trap("backward", "sqrt", line() + 1, "masked_fill",
      function(w) return w:sqrt():masked_fill(w:le(0), 0):sum() end, 1, 0, 3)
  end)

  it("is named for overflow and division too", function()
    local at = line() + 1
    local why = ask(variable(1, 2000), function(w) return lt.where(w:lt(9), w:exp(), 0):sum() end)
    assert.equal("exp", why.op)
    assert.equal(here(at), why.where)
    assert.matches("did not select", why.message)
    at = line() + 1
    why = ask(variable(1, 0), function(w) return lt.where(w:gt(0), 1 / w, 0):sum() end)
    assert.equal("div", why.op)
    assert.equal(here(at), why.where)
    assert.same({ 1, 0 }, { why.operands[1], why.operands[2] })
    assert.matches("did not select", why.message)
  end)

  it("is gone when the advice is followed", function()
    local w = variable(1, 0, 3)
    local tape = lt.tape()
    local good = w:gt(0)
    local g, why = tape:gradient(lt.where(good, lt.where(good, w, 1):log(), 0):sum(), w)
    assert.same({ 1, 0, 1 / 3 }, g:totable())
    assert.is_nil(why)
  end)
end)

describe("what is told of NaN and Inf", function()
  it("is found in other chunks, on persistent tapes, and for each source", function()
    local f = load("local x = ...\nlocal y = x:abs()\nreturn y:log()", "@module.lua")
    local a, b = variable(1, 0), variable(2, 2)
    local tape = lt.tape { persistent = true }
    local loss = (f(a) * b):sum() + (b * b):sum()
    for _ = 1, 2 do
      local gs = tape:gradient(loss, { a, b })
      assert.equal("module.lua:3", gs:why(a).where)
      assert.equal("module.lua:3", gs:why(b).where)
      assert.equal("log", gs:why(b).op)
    end
    local g, why = tape:gradient((b * b):sum(), b)
    assert.same({ 4, 4 }, g:totable())
    assert.is_nil(why)
    tape:close()
  end)

  it("is in the optimizer's error, and nothing moves", function()
    local w = variable(1, 0)
    local at
    local ok, message = pcall(function()
      lt.optim.SGD { lr = 0.1 }:minimize(function()
        at = line() + 1
        return w:log():sum()
      end, { w })
    end)
    assert.is_false(ok)
    assert.truthy(message:find("log at " .. here(at), 1, true), message)
    assert.truthy(message:find("'w'", 1, true))
    assert.truthy(message:find("1 of 2", 1, true))
    assert.same({ 1, 0 }, w:totable())
  end)

  it("stands above cuts", function()
    local w = variable(1, 0)
    local tape = lt.tape()
    local gs = tape:gradient((w:log() + w:detach()):sum(), { w })
    local why = gs:why(w)
    assert.equal("nonfinite", why.code)
    assert.equal("stopped", why.cuts[1].code)
  end)

  it("survives a tape that records the gradient, sparse gradients and vmap", function()
    local w = variable(1, 0)
    local outer = lt.tape { persistent = true }
    local inner = lt.tape()
    local g = inner:gradient((w:log()):sum(), w)
    local count = outer.count
    local _, why = outer:gradient(g:sum(), w)
    assert.equal("nonfinite", why.code)
    assert.is_true(count < 12)
    outer:close()

    local table_ = lt.variable({ { 1, nan }, { 1, 1 } }, { name = "table" })
    local tape = lt.tape()
    local rows = lt.embedding(lt.tensor { 1, 1 }:to "int64", table_, { sparse = true })
    local sparse, reason = tape:gradient((rows * rows):sum(), table_)
    assert.is_true(sparse.is_sparse)
    assert.equal("nonfinite", reason.code)

    local per = lt.vmap(lt.grad(function(x) return x:log():sum() end))(lt.zeros(3, 2))
    assert.equal(inf, per:amax():item())
  end)

  it("blames what makes nan of a mask of -inf, not the mask", function()
    local scores = lt.variable({ { 1, 2 }, { 3, 4 } }, { name = "scores" })
    local mask = lt.tensor({ { false, false }, { true, true } }, { dtype = "bool" })
    local at = line() + 2
    local why = ask(scores, function(s)
      local p = (s + lt.zeros(2, 2):masked_fill(mask, -inf)):softmax(2)
      return (p * p):sum()
    end)
    assert.equal("softmax", why.op)
    assert.equal(here(at), why.where)
  end)
end)

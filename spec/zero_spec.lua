-- Gradients that are exactly zero: which op blocked them, where, and why.
local lt = require "luatape"

local function here(n) return "spec/zero_spec.lua:" .. n end
local function line() return debug.getinfo(2, "l").currentline end

--- The reason of the zero gradient of f(w) in w.
local function ask(w, f)
  local tape = lt.tape()
  local y = f(w)
  local g, why = tape:gradient(y, w)
  assert.equal(0, g:abs():sum():item())
  assert.truthy(why, "no reason was given")
  assert.equal("zero", why.code)
  assert.truthy(tostring(why):find("[zero]", 1, true))
  assert.equal(why.message, tape:explain(y, w).message)
  return why
end

local function variable(...) return lt.variable({ ... }, { name = "w" }) end

describe("a zero gradient", function()
  local function check(because, op, at, f, ...)
    local why = ask(variable(...), f)
    assert.equal(because, why.because)
    assert.equal(op, why.op)
    assert.equal(here(at), why.where)
    assert.equal(1, why.share)
    assert.truthy(why.message:find(op .. " at " .. here(at) .. " blocked 100 %", 1, true))
    assert.truthy(why.message:find("'w'", 1, true))
    return why
  end

  it("of a dead relu", function()
    local at = line() + 1
    local why = check("relu", "relu", at, function(w) return ((w - 5):relu() * 2):sum() end, 1, 2)
    assert.truthy(why.message:find("(2 of 2)", 1, true))
    check("relu", "relu6", line(), function(w) return (-w):relu6():sum() end, 1, 2)
  end)

  it("of a saturated sigmoid, tanh or softmax", function()
    check("saturated", "sigmoid", line(), function(w) return (w * 1e3):sigmoid():sum() end, 1, 2)
    check("saturated", "tanh", line(), function(w) return (w * -1e3):tanh():sum() end, 1, 2)
    check("saturated", "softmax", line(), function(w) return (w * 1e4):softmax(1)[1] end, 1, 2)
  end)

  it("of a clamp", function()
    check("clipped", "clamp", line(), function(w) return w:clamp(10, 20):sum() end, 1, 2)
    check("clipped", "hardtanh", line(), function(w) return lt.hardtanh(w):sum() end, 5, 7)
  end)

  it("of what was not selected", function()
    check("masked", "where", line(), function(w) return lt.where(w:gt(5), w, 0):sum() end, 1, 2)
    check("masked", "maximum", line(), function(w) return lt.maximum(w, 9):sum() end, 1, 2)
    check("masked", "masked_fill", line() + 1, function(w)
      return w:masked_fill(w:lt(5), 0):sum() end, 1, 2)
    check("masked", "max", line(), function(w) return lt.max(lt.cat { w, lt.tensor { 9 } }) end, 1, 2)
    check("masked", "max_pool1d", line() + 1, function(w)
      return lt.max_pool1d(lt.cat({ w, lt.tensor { 9 } }):reshape(1, 1, 3), 3):sum() end, 1, 2)
  end)

  it("of steps", function()
    check("flat-op", "round", line(), function(w) return (w:round() * 3):sum() end, 1, 2)
    check("flat-op", "floor", line(), function(w) return w:floor():sum() end, 1, 2)
    check("flat-op", "sign", line(), function(w) return w:sign():sum() end, 1, 2)
  end)

  it("of a factor that is zero", function()
    check("zero-factor", "mul", line(), function(w) return (w * 0):sum() end, 1, 2)
    check("zero-factor", "mul", line(), function(w) return (w * lt.zeros(2)):sum() end, 1, 2)
    check("zero-factor", "matmul", line(), function(w) return lt.zeros(3, 2):matmul(w):sum() end, 1, 2)
  end)

  it("names the op that blocked last on the way to the source", function()
    local at = line() + 3
    local why = ask(variable(1, 2), function(w)
      local h = w * 3
      h = (h - 100):relu()
      local z = (w * 2):clamp(-1, 1)
      return h:sum() + z:sum()
    end)
    assert.equal(here(at), why.where)
    assert.equal("relu", why.op)
    local first = line() + 2
    why = ask(variable(1, 2), function(w)
      local h = lt.where(w:gt(1), 0, w)
      h = lt.where(h:gt(0), 0, h)
      return h:sum()
    end)
    assert.equal(here(first + 0), why.where)
    assert.truthy(why.message:find("(1 of 1)", 1, true))
  end)

  it("tells each of several sources its own reason", function()
    local a, b = lt.variable({ 1 }, { name = "a" }), lt.variable({ 1 }, { name = "b" })
    local c = lt.variable({ 1 }, { name = "c" })
    local tape = lt.tape()
    local x = (-a):relu()
    local y = b:round()
    local loss = (x + y + c):sum()
    local gs = tape:gradient(loss, { a = a, b = b, c = c })
    assert.equal("relu", gs:why(a).because)
    assert.equal("flat-op", gs:why(b).because)
    assert.equal("ok", gs:why(c).code)
    assert.is_nil(gs:why(c).because)
  end)

  it("finds the line inside functions and modules of other chunks", function()
    local module = load("local lt = ...\nlocal m = {}\nfunction m.f(x)\n  local h = x - 9\n"
      .. "  h = h:relu()\n  return h\nend\nreturn m", "@layers.lua")(lt)
    local why = ask(variable(1, 2), function(w) return module.f(w):sum() end)
    assert.equal("layers.lua:5", why.where)
  end)

  it("names the call in the user's file for layers of luatape", function()
    local model = lt.nn.Linear(2, 2)
    model.weight:assign(lt.zeros(2, 2))
    model.bias:assign(lt.tensor { -1, -2 })
    local at
    local tape = lt.tape()
    local h = model(lt.ones(1, 2))
    at = line() + 1
    local loss = h:relu():sum()
    local gs = tape:gradient(loss, model:parameters())
    for _, p in ipairs(model:parameters()) do
      local why = gs:why(p)
      assert.equal("relu", why.because)
      assert.equal(here(at), why.where)
    end
  end)

  it("looks into a checkpoint", function()
    local at
    local why = ask(variable(1, 2), function(w)
      return lt.checkpoint(function(x)
        at = line() + 1
        return (x - 9):relu()
      end, w):sum()
    end)
    assert.equal("relu", why.because)
    assert.equal(here(at), why.where)
  end)

  it("does not call a custom gradient a second time", function()
    local calls = 0
    local f = lt.custom_gradient(function(x)
      return x * 2, function(dy)
        calls = calls + 1
        return dy * 0
      end
    end)
    local at = line() + 1
    local why = ask(variable(1, 2), function(w) return f(w):sum() end)
    assert.equal(1, calls)
    assert.equal("custom_gradient", why.op)
    assert.equal(here(at), why.where)
  end)

  it("is searched for once for each variable, and told again", function()
    local searches = 0 -- a checkpoint runs again in each search
    local w = variable(1, 2)
    local function step()
      local tape = lt.tape()
      local y = lt.checkpoint(function(x)
        searches = searches + 1
        return x * 0
      end, w):sum()
      local gs = tape:gradient(y, { w })
      return gs:why(w)
    end
    local first = step()
    assert.is_true(searches > 2)
    searches = 0
    local second = step()
    assert.equal(2, searches) -- forward and backward
    assert.equal(first.message, second.message)
    assert.equal("zero-factor", second.because)
  end)

  it("is searched for a limited number of times for plain tensors of one line", function()
    local last
    for _ = 1, 120 do
      local x = lt.ones(2)
      local tape = lt.tape()
      tape:watch(x)
      local y = (x * 0):sum()
      local gs = tape:gradient(y, { x })
      last = gs:why(x)
      assert.equal("zero", last.code)
    end
    assert.is_nil(last.because)
    assert.matches("not searched for", last.message)
  end)

  it("says so where contributions cancel, and where the weights are zero", function()
    local why = ask(variable(1, 2), function(w) return (w - w):sum() end)
    assert.equal("zero-factor", why.because)
    assert.matches("cancel", why.message)
    local w = variable(1, 2)
    local tape = lt.tape()
    local y = w * 2
    local _, of_seeds = tape:gradient(y, w, { output_gradients = lt.zeros(2) })
    assert.matches("output_gradients", of_seeds.message)
  end)

  it("gives way to cuts, and leaves other gradients alone", function()
    local w = variable(1, 2)
    local tape = lt.tape { persistent = true }
    local y = (w * 0 + w:detach()):sum()
    local z = (w * w):sum()
    local gs = tape:gradient(y, { w })
    assert.equal("partial", gs:why(w).code)
    assert.equal("zero-factor", gs:why(w).because)
    local g, none = tape:gradient(z, w)
    assert.same({ 2, 4 }, g:totable())
    assert.is_nil(none)
    assert.equal("ok", tape:explain(z, w).code)
    tape:close()
  end)

  it("is in minimize's report", function()
    local w, v = variable(1, 2), lt.variable({ 1 }, { name = "v" })
    local at
    local _, report = lt.optim.SGD { lr = 0.1 }:minimize(function()
      at = line() + 1
      return (w - 9):relu():sum() + (v * v):sum()
    end, { w, v })
    assert.equal("zero", report.w.status)
    assert.truthy(report.w.reason:find("relu at " .. here(at), 1, true))
    assert.equal("ok", report.v.status)
  end)

  it("uses up no random numbers and leaves no operations in the history", function()
    local function draw(factor)
      lt.manual_seed(7)
      local w = variable(1, 2)
      local tape = lt.tape()
      local y = (lt.dropout(w, 0.5) * factor):sum()
      tape:gradient(y, w)
      return lt.rand(4):totable()
    end
    assert.same(draw(1), draw(0))
  end)
end)

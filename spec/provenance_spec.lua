-- Every code of a missing gradient in several shapes: straight, through a module, a function of
-- another file, a coroutine, pcall, an operator, a loop, a tail call. Code, exact line, op, words.
local lt = require "luatape"
local script = require "spec.script"

local holds = script.holds

---What is checked of a reason: code, "line" or "file:line", op, then words of the message.
local function expect(why, code, where, op, ...)
  if type(where) == "number" then where = "train.lua:" .. where end
  assert.equal(code, why.code, why.message)
  assert.equal(where, why.where, why.message)
  assert.equal(op, why.op, why.message)
  holds(why.message, "[" .. code .. "]", ...)
  assert.equal(why.message, tostring(why))
  return why
end

---Runs train.lua; it must return nil and a reason, or a reason.
local function told(text, code, where, op, ...)
  local first, why = script.run("train.lua", text)
  return expect(why or first, code, where, op, ...)
end

---The cuts as "code file:line op".
local function cuts(why)
  local list = {}
  for i, c in ipairs(why.cuts) do
    list[i] = ("%s %s %s"):format(c.code, c.where:gsub("^train%.lua:", ""), c.op)
  end
  return list
end

describe("outside-tape", function()
  it("before the tape, through modules in modules", function()
    told([[
      local nn = lt.nn
      local block = nn.Sequential{nn.Linear(2, 2), nn.Sequential{nn.Linear(2, 2), nn.Tanh()}}
      local model = nn.Sequential{block, nn.Linear(2, 1)}
      local y = model(
        lt.ones(1, 2))
      local tape <close> = lt.tape()
      return tape:gradient(y:sum(), model:parameters()[3])
    ]], "outside-tape", 4, "linear", "1.2.1.weight was last used by linear at train.lua:4",
      "before this tape was opened at train.lua:6", "Move the call at train.lua:4")
  end)

  it("after the tape was closed or used up, by an operator in a coroutine", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape = lt.tape()
      local first = w * w
      tape:gradient(first, w)
      local y = coroutine.wrap(function()
        return w / 2
      end)()
      return tape:explain(y, w)
    ]], "outside-tape", 6, "div", "after this tape was used up at train.lua:4")
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape = lt.tape()
      tape:close()
      local ok, y = pcall(lt.exp, w)
      return tape:explain(y, w)
    ]], "outside-tape", 4, "exp", "after this tape was closed")
  end)

  it("what followed on a recorded value is told where it left", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape = lt.tape()
      local h = w * w
      tape:close()
      local u = h + 1
      local y = u * 2
      return tape:explain(y, w)
    ]], "outside-tape", 5, "add", "add at train.lua:5 ran after this tape was closed")
  end)

  it("is one cut, at the use, however much followed; several uses are several cuts", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local a = (w * 2):exp():tanh()
      local b = w + a
      local tape <close> = lt.tape()
      return tape:explain((b * 3):sum(), w)
    ]], "outside-tape", 3, "add", "It is also cut by mul at train.lua:2 [outside-tape]")
    assert.same({ "outside-tape 3 add", "outside-tape 2 mul" }, cuts(why))
  end)

  it("in a loop is one cut for its line", function()
    local why = told([[
      local w, h = lt.variable({1, 2}, {name = "w"}), lt.ones(2)
      for _ = 1, 50 do
        h = h * w
      end
      local tape <close> = lt.tape()
      return tape:explain(h:sum(), w)
    ]], "outside-tape", 3, "mul")
    assert.equal(1, #why.cuts)
  end)

  it("names what the user called, not the parts it is made of", function()
    told([[
      local w = lt.variable({{1, 2}}, {name = "w"})
      local y = lt.cosine_similarity(w, lt.ones(1, 2))
      local tape <close> = lt.tape()
      return tape:gradient(y:sum(), w)
    ]], "outside-tape", 2, "cosine_similarity", "cosine_similarity at train.lua:2")
  end)
end)

describe("no-grad", function()
  it("in a function of another file", function()
    local features = script.run("features.lua", [[
      return function(w)
        return lt.no_grad(function()
          return w:exp()
        end)
      end
    ]])
    expect(script.run("train.lua", [[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      return tape:explain(features(w) * 2, w)
    ]], { features = features }), "no-grad", "features.lua:3", "exp", "inside lt.no_grad")
  end)

  it("of a C function given as it is, and of a part of the way", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local y = lt.no_grad(lt.sin, w)
      return tape:gradient(y, w)
    ]], "no-grad", 3, "sin")
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local h = w * 3
      local u = lt.no_grad(function(x)
        local a = x + 1
        return a * a
      end, h)
      return tape:gradient(u:sum(), w)
    ]], "no-grad", 5, "add")
    assert.equal(1, #why.cuts)
  end)
end)

describe("paused", function()
  it("between stop and resume", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape{persistent = true}
      tape:stop()
      local y = -w
      tape:resume()
      return tape:gradient(y * 2, w)
    ]], "paused", 4, "neg", "while this tape was paused", "tape:resume")
  end)

  it("in tape:paused, under pcall, on a recorded value", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local h = w * 2
      local _, y = pcall(tape.paused, tape, function()
        return h:tanh()
      end)
      return tape:gradient(y, w)
    ]], "paused", 5, "tanh")
  end)

  it("while another tape listened on", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local outer <close> = lt.tape()
      local tape <close> = lt.tape()
      tape:stop()
      local y = w * w
      tape:resume()
      return tape:explain(y, w)
    ]], "paused", 5, "mul")
  end)
end)

describe("reset", function()
  it("is told at the reset", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local y = w * 2
      tape:reset()
      return tape:gradient(y + 1, w)
    ]], "reset", 4, "reset", "forgotten by tape:reset at train.lua:4")
  end)

  it("through a module and a function", function()
    local why = told([[
      local model = lt.nn.Linear(2, 1)
      local tape <close> = lt.tape()
      local y = model(lt.ones(1, 2)):relu()
      local function clear() tape:reset() end
      clear()
      return tape:gradient(y:sum(), model.weight)
    ]], "reset", 4, "reset")
    assert.same({ "reset 4 reset" }, cuts(why))
  end)
end)

describe("other-tape", function()
  it("of the iteration before", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local first = lt.tape()
      local y = w * w
      first:close()
      local tape <close> = lt.tape()
      return tape:gradient(y * 2, w)
    ]], "other-tape", 3, "mul", "recorded by another tape, before this tape was opened at train.lua:5")
  end)

  it("beside this one, that alone watched", function()
    told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local other <close> = lt.tape()
      local tape <close> = lt.tape()
      other:watch(x)
      local y = lt.exp(x) * 2
      return tape:gradient(y, x)
    ]], "other-tape", 5, "exp", "call tape:watch on it here too")
  end)

  it("a tensor of another tape as the source", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local first = lt.tape()
      local h = w * w
      first:stop()
      local tape <close> = lt.tape()
      return tape:gradient(h * 2, h)
    ]], "rebound", 3, "mul")
  end)
end)

describe("second-order", function()
  it("a gradient that no outer tape recorded", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local inner = lt.tape()
      local y = (w ^ 3):sum()
      local g = inner:gradient(y, w)
      local tape <close> = lt.tape()
      return tape:gradient((g * 2):sum(), w)
    ]], "second-order", 4, "gradient", "the gradient taken at train.lua:4 was recorded by no outer tape")
  end)

  it("inside lt.no_grad, in a function", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local function slope()
        local inner <close> = lt.tape()
        local y = (w ^ 3):sum()
        local g = lt.no_grad(function()
          return (inner:gradient(y, w))
        end)
        return g
      end
      local tape <close> = lt.tape()
      return tape:gradient(slope():sum(), w)
    ]], "second-order", 6, "gradient")
    assert.same({ "second-order 6 gradient" }, cuts(why))
  end)

  it("asked of the tape that is used up", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape = lt.tape()
      local g = tape:gradient((w ^ 3):sum(), w)
      return tape:explain(g, w)
    ]], "second-order", 3, "gradient")
  end)
end)

describe("stopped", function()
  it("stop_gradient, and detach in a module of one's own", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local h = lt.stop_gradient(w * 2)
      return tape:gradient((h + 1):sum(), w)
    ]], "stopped", 3, "stop_gradient", "Remove it, or leave w out of the sources")
    told([[
      local Head = lt.nn.module("Head", function(self) self.inner = lt.nn.Linear(2, 2) end)
      function Head:forward(x)
        local h = self.inner(x):detach()
        return h * 2
      end
      local model = lt.nn.Sequential{lt.nn.Linear(2, 2), Head()}
      local tape <close> = lt.tape()
      local y = model(lt.ones(1, 2))
      return tape:gradient(y:sum(), model[1].weight)
    ]], "stopped", 3, "detach")
  end)

  it("wins over an earlier cause, since it is nearer to the target", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local h = w * 2
      local tape <close> = lt.tape()
      local u = lt.no_grad(lt.exp, h)
      local s = u:detach()
      return tape:gradient((s * 3):sum(), w)
    ]], "stopped", 5, "detach", "It is also cut by exp at train.lua:4 [no-grad], and further on")
    assert.same({ "stopped 5 detach", "no-grad 4 exp", "outside-tape 2 mul" }, cuts(why))
  end)

  it("is not taken for the cause when the other path is dead", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local a = w:detach()
      local b = lt.no_grad(lt.exp, w)
      return tape:gradient((a + b):sum(), w)
    ]], "no-grad", 4, "exp", "It is also cut by detach at train.lua:3 [stopped]")
    assert.equal(2, #why.cuts)
  end)
end)

describe("unwatched", function()
  it("is told at the first use", function()
    told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local a = x * 2
      local b = x + a
      return tape:gradient(b, x)
    ]], "unwatched", 3, "mul", "no one watched x when mul used it at train.lua:3", "lt.variable")
  end)

  it("also where a variable made the op be recorded, through a module", function()
    told([[
      local model = lt.nn.Linear(2, 1)
      local x = lt.tensor({{1, 2}}, {name = "x"})
      local tape <close> = lt.tape()
      local y = model(x)
      return tape:gradient(y:sum(), x)
    ]], "unwatched", 4, "linear")
  end)

  it("a variable under watch_variables = false", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape{watch_variables = false}
      local y = w * w
      return tape:gradient(y, w)
    ]], "unwatched", 3, "mul", "watch_variables = false", "Call tape:watch on it")
  end)

  it("the target itself", function()
    told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      return tape:gradient(x, x)
    ]], "unwatched", 1, "tensor")
  end)
end)

describe("late-watch", function()
  it("is told at the watch", function()
    told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local y = x:exp()
      tape:watch(x)
      return tape:gradient(y, x)
    ]], "late-watch", 4, "watch", "only after its use")
  end)

  it("in a function, with a later use that counts", function()
    local why = told([[
      local x = lt.tensor({1, 2}, {name = "x"})
      local tape <close> = lt.tape()
      local y = -x
      local function observe(t)
        tape:watch(t)
      end
      observe(x)
      return tape:explain(y + x * 3, x)
    ]], "partial", 5, "watch", "x reaches the target by 1 path")
    assert.same({ "late-watch 5 watch" }, cuts(why))
  end)
end)

describe("frozen", function()
  it("when it was made, or later, or by freeze", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w", trainable = false})
      local tape <close> = lt.tape()
      return tape:gradient(w * 2, w)
    ]], "frozen", 1, "trainable", "w is not trainable since train.lua:1")
    told([[
      local w, v = lt.variable({1, 2}, {name = "w"}), lt.variable({3, 4})
      w.trainable = false
      local tape <close> = lt.tape()
      return tape:gradient(w * v, w)
    ]], "frozen", 2, "trainable")
    told([[
      local model = lt.nn.Sequential{lt.nn.Linear(2, 2), lt.nn.Linear(2, 1)}
      local function prepare() model[1]:freeze() end
      prepare()
      local tape <close> = lt.tape()
      return tape:gradient(model(lt.ones(1, 2)):sum(), model[1].weight)
    ]], "frozen", 2, "trainable", "1.weight is not trainable", "unfreeze")
  end)

  it("at its use, though it is trainable again", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      w.trainable = false
      local tape <close> = lt.tape()
      local y = w * 2
      w.trainable = true
      return tape:gradient(y, w)
    ]], "frozen", 2, "trainable")
  end)
end)

describe("rebound", function()
  it("by a step out of place", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local g = lt.ones(2)
      w = w - g * 0.1
      local tape <close> = lt.tape()
      return tape:gradient((w * w):sum(), w)
    ]], "rebound", 3, "sub", "another object than the variable", "v:assign_sub")
  end)

  it("in a loop, in a function of another file, in a table", function()
    local step = script.run("sgd.lua", [[
      return function(params, gs)
        for i, g in ipairs(gs) do
          params[i] = params[i] - g * 0.1
        end
      end
    ]])
    expect(script.run("train.lua", [[
      local params, gs = {lt.variable({1, 2})}, nil
      for _ = 1, 2 do
        local tape <close> = lt.tape()
        local y = (params[1] ^ 2):sum()
        gs = tape:gradient(y, params)
        if gs[1] then step(params, gs) end
      end
      return gs:why(params[1])
    ]], { step = step }), "rebound", "sgd.lua:3", "sub")
  end)

  it("is not said of data", function()
    told([[
      local w, x = lt.variable({1, 2}), lt.randn(2) / 255
      local tape <close> = lt.tape()
      return tape:gradient(w * x, x)
    ]], "unwatched", 3, "mul")
  end)
end)

describe("assigned", function()
  it("into a plain tensor, by a method or by brackets", function()
    told([[
      local w, x = lt.variable({1, 2}, {name = "w"}), lt.zeros(2)
      local tape <close> = lt.tape()
      x:assign(w * 2)
      return tape:gradient((x * 3):sum(), w)
    ]], "assigned", 3, "assign", "write in place at train.lua:3")
    told([[
      local w, x = lt.variable({1, 2}, {name = "w"}), lt.zeros(3, 2)
      local tape <close> = lt.tape()
      for i = 1, 3 do
        x[i] = w * i
      end
      return tape:gradient(x:sum(), w)
    ]], "assigned", 4, "assign")
  end)

  it("into a variable, also when that reaches the target by itself", function()
    told([[
      local v, x = lt.variable(1, {name = "v"}), lt.variable(3, {name = "x"})
      local tape <close> = lt.tape()
      v:assign(x * x)
      return tape:gradient(v * v, x)
    ]], "assigned", 3, "assign")
    told([[
      local v = lt.variable(1, {name = "v"})
      local tape <close> = lt.tape()
      v:assign_add(1)
      return tape:explain(v * v, v)
    ]], "ok", 1, nil)
  end)

  it("before the tape it is a state: nothing is missing", function()
    told([[
      local w, mean = lt.variable({1, 2}, {name = "w"}), lt.zeros(2)
      mean:assign(w * 0.1)
      local tape <close> = lt.tape()
      return tape:explain((w - mean):sum(), w)
    ]], "ok", 1, nil)
  end)
end)

describe("left-tensors", function()
  it("item, get, totable, through arithmetic on other tensors", function()
    told([[
      local w = lt.variable({1.5, 2.5}, {name = "w"})
      local tape <close> = lt.tape()
      local n = (w * w):sum():item()
      local y = lt.ones(2) * n
      return tape:gradient(y:sum(), w)
    ]], "left-tensors", 3, "item", "read as a plain number by item at train.lua:3")
    told([[
      local w = lt.variable({1.5, 2.5}, {name = "w"})
      local tape <close> = lt.tape()
      local list = {}
      for i = 1, 2 do
        list[i] = w:get(i)
      end
      return tape:gradient(lt.tensor(list), w)
    ]], "left-tensors", 5, "get")
  end)

  it("a printed loss is no cut", function()
    told([[
      local w = lt.variable({1.5, 2.5}, {name = "w"})
      local tape <close> = lt.tape()
      local loss = (w * w):sum()
      local shown = ("%g"):format(loss:item())
      return tape:explain(loss, w)
    ]], "ok", 1, nil)
  end)
end)

describe("integers", function()
  it("int-dtype: an integer or bool source", function()
    told([[
      local i = lt.tensor({1, 2}, {dtype = "int64", name = "i"})
      local tape <close> = lt.tape()
      return tape:gradient(i * lt.variable({1, 2}), i)
    ]], "int-dtype", 1, "tensor", "i is int64, made at train.lua:1", "float32")
    told([[
      local w = lt.variable({1, 2})
      local tape <close> = lt.tape()
      local mask = w:gt(1)
      return tape:gradient(lt.where(mask, w, 0):sum(), mask)
    ]], "int-dtype", 3, "gt", "is bool")
  end)

  it("int-cast: a cast on the way, in another file", function()
    local quantize = script.run("quantize.lua", "return function(x)\n  return x:to('uint8')\nend")
    expect(script.run("train.lua", [[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      return tape:explain(quantize(w * 2):to("float32"), w)
    ]], { quantize = quantize }), "int-cast", "quantize.lua:2", "to", "casts the value to an integer")
    told([[
      local w = lt.variable({1, 0}, {name = "w"})
      local tape <close> = lt.tape()
      local on = w:to("bool")
      return tape:gradient(lt.where(on, lt.variable{5, 6}, 0):sum(), w)
    ]], "int-cast", 3, "to")
  end)
end)

describe("nondiff-op", function()
  it("a comparison, argmax, and the indices of an op that has values too", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local hit = (w * 2):gt(1):to("float32")
      return tape:gradient(hit:mean(), w)
    ]], "nondiff-op", 3, "gt", "gt at train.lua:3 has no gradient", "sigmoid(k * x)")
    told([[
      local w = lt.variable({{1, 2}}, {name = "w"})
      local tape <close> = lt.tape()
      local values, places = lt.sort(w)
      return tape:gradient(places:to("float32"):sum(), w)
    ]], "nondiff-op", 3, "sort", "sort at train.lua:3 has no gradient")
  end)

  it("a gradient function that gives none", function()
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local f = lt.custom_gradient(function(x) return x * 2, function() return nil end end)
      local tape <close> = lt.tape()
      local y = f(w)
      return tape:gradient(y:sum(), w)
    ]], "nondiff-op", 4, "custom_gradient")
  end)

  it("a mask or an index takes nothing from a gradient", function()
    told([[
      local w = lt.variable({1, -2}, {name = "w"})
      local tape <close> = lt.tape()
      return tape:explain(lt.where(w:gt(0), w, w * 0.1):sum(), w)
    ]], "ok", 1, nil, "by 2 paths")
    told([[
      local w = lt.variable({1, -2}, {name = "w"})
      local tape <close> = lt.tape()
      local steep = w:gt(0):to("float32")
      return tape:explain((w * steep):sum(), w)
    ]], "partial", 3, "gt", "[nondiff-op]")
  end)
end)

describe("dead-end and unused", function()
  it("a result that is dropped: its last use", function()
    told([[
      local w, v = lt.variable({1, 2}, {name = "w"}), lt.variable({3, 4})
      local tape <close> = lt.tape()
      local a = w * 2
      local b = a:exp()
      local c = w + 1
      return tape:gradient(v * v, w)
    ]], "dead-end", 5, "add", "last by add at train.lua:5")
  end)

  it("one head of two, in a loop", function()
    local why = told([[
      local heads = {lt.nn.Linear(2, 1), lt.nn.Linear(2, 1)}
      local tape <close> = lt.tape()
      local out = {}
      for i, head in ipairs(heads) do
        out[i] = head(lt.ones(1, 2))
      end
      return tape:gradient(out[1]:sum(), heads[2].weight)
    ]], "dead-end", 5, "linear")
    assert.same({}, why.cuts)
  end)

  it("not used at all, or only before the tape and for something else", function()
    told([[
      local w, v = lt.variable({1, 2}, {name = "w"}), lt.variable({3, 4})
      local norm = w:norm()
      local tape <close> = lt.tape()
      return tape:gradient(v * v, w)
    ]], "unused", 3, nil, "w was not used since the tape was opened at train.lua:3")
    told([[
      local model = lt.nn.Sequential{lt.nn.Linear(2, 2), lt.nn.Linear(2, 2)}
      local function open() return lt.tape(), 1 end
      local tape <close> = open()
      local y = model[1](lt.ones(1, 2))
      return tape:gradient(y:sum(), model[2].bias)
    ]], "unused", 2, nil, "2.bias")
  end)
end)

describe("history-dropped", function()
  after_each(function() lt.set_history(65536) end)

  it("is said instead of a guess", function()
    lt.set_history(4)
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local y = w * 2
      for _ = 1, 10 do y = y + 1 end
      local tape <close> = lt.tape()
      return tape:gradient(y * 3, w)
    ]], "history-dropped", 4, nil, "last 4 operations", "lt.set_history(n)")
    lt.set_history(0)
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local tape <close> = lt.tape()
      local y = lt.stop_gradient(w) * 3
      return tape:gradient(y, w)
    ]], "history-dropped", 2, nil, "last 0 operations")
  end)

  it("is not said where nothing is missing", function()
    lt.set_history(8)
    told([[
      local w, x = lt.variable({1, 2}, {name = "w"}), lt.variable({3, 4})
      for _ = 1, 100 do local y = w * 2 end
      local tape <close> = lt.tape()
      return tape:gradient((x * x):sum(), w)
    ]], "unused", 3, nil)
  end)
end)

describe("partial and ok", function()
  it("counts paths and names each cut, the nearest first", function()
    local why = told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local early = w * 2
      local tape <close> = lt.tape()
      local a = w * early
      local b = w:detach() * w
      local c = lt.no_grad(lt.exp, w)
      return tape:explain((a + b + c):sum(), w)
    ]], "partial", 6, "exp", "w reaches the target by 2 paths",
      "the nearest other is cut by exp at train.lua:6 [no-grad]", "share is missing")
    assert.equal(2, why.paths)
    assert.same({ "no-grad 6 exp", "stopped 5 detach", "outside-tape 2 mul" }, cuts(why))
  end)

  it("the paused share of a sum", function()
    told([[
      local w = lt.variable(3, {name = "w"})
      local tape <close> = lt.tape()
      tape:stop()
      local h = w * w
      tape:resume()
      return tape:explain(h * w, w)
    ]], "partial", 4, "mul")
  end)

  it("ok through every kind of call", function()
    local why = told([[
      local model = lt.nn.Sequential{lt.nn.Linear(2, 3), lt.nn.ReLU(), lt.nn.Linear(3, 2)}
      local tape <close> = lt.tape()
      local loss = lt.cross_entropy(model(lt.ones(4, 2)), lt.ones(4, {dtype = "int64"}))
      return tape:explain(loss, model[1].weight)
    ]], "ok", 1, nil)
    assert.equal(1, why.paths)
    assert.same({}, why.cuts)
  end)
end)

describe("explain", function()
  it("answers for every kind of source on an open, a used up and a closed tape", function()
    script.run("train.lua", [[
      local w, x = lt.variable({1, 2}, {name = "w"}), lt.tensor({3, 4}, {name = "x"})
      local plain, other = lt.tensor{5, 6}, lt.tape()
      other:watch(plain)
      local foreign = plain * 2
      other:close()
      local tape = lt.tape()
      tape:watch(x)
      local h = w * x
      local loss = (h * plain * foreign):sum() + lt.stop_gradient(w):sum()
      local function check()
        assert(tape:explain(loss, w).code == "partial")
        assert(tape:explain(loss, x).code == "ok")
        assert(tape:explain(loss, h).code == "ok")
        assert(tape:explain(loss, loss).code == "ok")
        assert(tape:explain(loss, plain).code == "unwatched")
        assert(tape:explain(loss, foreign).code == "unwatched")
        assert(tape:explain(h, loss).code == "unused" or tape:explain(h, loss).code == "dead-end")
        assert(tape:explain({loss, h}, w).paths == 2)
      end
      check()
      tape:gradient(loss, w)
      check()
      tape:close()
      check()
    ]])
  end)

  it("knows modules by their names, and unnamed tensors by where they were made", function()
    local why = told([[
      local w = lt.variable{1, 2}
      local tape <close> = lt.tape()
      local y = w:detach() * 2
      return tape:gradient(y, w)
    ]], "stopped", 3, "detach")
    holds(why.message, "no gradient of the result of mul at train.lua:3 with respect to "
      .. "the variable at train.lua:1 [stopped]")
  end)

  it("says of a frame lost to a tail call that it is lost", function()
    local why = told([[
      local Model = lt.nn.module("Model", function(self) self.inner = lt.nn.Linear(2, 2) end)
      function Model:forward(x)
        return self.inner(x)
      end
      local model = Model()
      local y = model(lt.ones(1, 2))
      local tape <close> = lt.tape()
      return tape:gradient(y:sum(), model.inner.weight)
    ]], "outside-tape", "train.lua:6 (in a tail call)", "linear")
    holds(why.message, "train.lua:6 (in a tail call)")
    told([[
      local w = lt.variable({1, 2}, {name = "w"})
      local function f() return w * 2 end
      local function g()
        return lt.exp(w)
      end
      local y = f() + g()
      local tape <close> = lt.tape()
      return tape:gradient(y, w)
    ]], "outside-tape", 4, "exp")
  end)

  it("refuses what is no tensor", function()
    local message = script.error("train.lua", [[
      local tape <close> = lt.tape()
      return tape:explain(lt.ones(1), 5)
    ]])
    holds(message, "train.lua:2: explain: ")
  end)
end)

-- The tape: what it records, what gradient answers, nesting, cuts and their reasons, lifetimes.
local lt = require "luatape"

local function line() return debug.getinfo(2, "l").currentline end
local function here(n) return "spec/tape_spec.lua:" .. n end
local function value(t) return t:totable() end

describe("tape:gradient", function()
  it("differentiates with respect to variables and watched tensors", function()
    local w, x = lt.variable{ 1, 2, 3 }, lt.tensor{ 4, 5, 6 }
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = (w * x):sum()
    local g = tape:gradient(y, { w, x })
    assert.same({ 4, 5, 6 }, value(g[1]))
    assert.same({ 1, 2, 3 }, value(g[2]))
  end)

  it("answers nested tables of sources in their own shape", function()
    local w = { a = { lt.variable(2), lt.variable(3) }, b = lt.variable(5), unused = lt.variable(7) }
    local tape = lt.tape()
    local y = w.a[1] * w.a[2] * w.b
    local g = tape:gradient(y, w)
    assert.equal(15, g.a[1]:item())
    assert.equal(10, g.a[2]:item())
    assert.equal(6, g.b:item())
    assert.is_false(g.unused)
    assert.equal("unused", g:why(w.unused).code)
  end)

  it("sums a target that is no scalar, weighs it, and adds up several targets", function()
    local x = lt.variable{ 1, 2 }
    local tape = lt.tape{ persistent = true }
    local y, z = x * x, x * 3
    assert.same({ 2, 4 }, value(tape:gradient(y, x)))
    assert.same({ 20, 400 }, value(tape:gradient(y, x, { output_gradients = lt.tensor{ 10, 100 } })))
    assert.same({ 5, 7 }, value(tape:gradient({ y, z }, x)))
    assert.same({ 3, 3 }, value(tape:gradient({ a = y, b = z }, x,
      { output_gradients = { a = lt.zeros(2), b = lt.ones(2) } })))
    tape:close()
  end)

  it("treats what is not connected as asked", function()
    local x, z = lt.variable{ 1, 2 }, lt.variable({ 1, 2, 3 }, { name = "z" })
    local function ask(kind)
      local tape = lt.tape()
      return tape:gradient((x * x):sum(), z, { unconnected_gradients = kind })
    end
    local g, why = ask()
    assert.is_nil(g)
    assert.equal("unused", why.code)
    assert.same({ 0, 0, 0 }, value(ask "zero"))
    assert.error_matches(function() ask "error" end, "no gradient of .* 'z' %[unused%]")
    assert.error_matches(function() ask "nil" end, "must be one of: none zero error")
  end)

  it("gives an intermediate value's gradient, and the target's own", function()
    local x = lt.variable(3)
    local tape = lt.tape{ persistent = true }
    local h = x * x
    local y = h * h
    assert.equal(18, tape:gradient(y, h):item())
    assert.equal(1, tape:gradient(y, y):item())
    assert.is_nil((tape:gradient(h, y)))
    tape:close()
  end)

  it("is used up by its first question unless it is persistent", function()
    local x = lt.variable(3)
    local tape = lt.tape()
    local y = x * x
    local first = line() + 1
    tape:gradient(y, x)
    local _, message = pcall(function() tape:gradient(y, x) end)
    assert.equal(here(first + 1), message:match("^(.-): "))
    assert.truthy(message:find("used up at " .. here(first), 1, true))
    assert.truthy(message:find("persistent = true", 1, true))
    assert.is_true(tape.consumed)
  end)

  it("refuses integer targets, foreign values and wrong weights", function()
    local x = lt.variable{ 1, 2 }
    local function try(f)
      return function()
        local tape <close> = lt.tape()
        f(tape, x * x)
      end
    end
    assert.error_matches(try(function(t, y) t:gradient(y:to("int64"), x) end), "target is int64")
    assert.error_matches(try(function(t, y) t:gradient(y, 5) end), "takes a tensor or a table")
    assert.error_matches(try(function(t, y) t:gradient("y" and y, x, { output_gradients = lt.ones(3) }) end),
      "output_gradients is float32 3, the target float32 2")
    assert.error_matches(try(function(t, y) t:gradient(y, x, { nosuch = 1 }) end), "unknown option 'nosuch'")
    assert.error_matches(function() lt.tape():watch(lt.tensor({ 1 }, { dtype = "int64" })) end,
      "watch: .* is int64; only float32 and float64")
  end)

  it("walks 1,000,000 chained operations without touching the C stack's limit", function()
    local program = os.getenv "LUATAPE_PROGRAM" or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local file = os.tmpname()
    local f <close> = assert(io.open(file, "w"))
    f:write [[
      local lt = require "luatape"
      local x = lt.variable(1, { dtype = "float64" })
      local tape <close> = lt.tape()
      local y = x
      for _ = 1, 1000000 do y = y + x end
      print(tape:gradient(y, x):item())
    ]]
    f:flush()
    local pipe = io.popen("ulimit -s 256; '" .. program .. "' " .. file .. " 2>&1")
    assert.equal("1000001.0\n", pipe:read("a"))
    assert.is_true(pipe:close())
    os.remove(file)
  end)
end)

describe("nested tapes", function()
  it("give derivatives of any order", function()
    local x = lt.variable({ 0.5, 1.5 }, { dtype = "float64" })
    local t1 <close> = lt.tape()
    local t2 <close> = lt.tape()
    local t3 <close> = lt.tape()
    local first = t3:gradient((x ^ 4):sum(), x)
    local second = t2:gradient(first:sum(), x)
    local third = t1:gradient(second:sum(), x)
    assert.is_true(lt.allclose(third, x * 24))
  end)

  it("let a persistent tape see the gradients that were taken inside it", function()
    local x = lt.variable(2, { dtype = "float64" })
    local tape <close> = lt.tape{ persistent = true }
    local dy = tape:gradient(x ^ 3, x)
    assert.equal(12, tape:gradient(dy, x):item())
  end)

  it("keep apart what each watches", function()
    local a, b = lt.tensor(2), lt.tensor(3)
    local ta, tb = lt.tape(), lt.tape()
    ta:watch(a)
    tb:watch(b)
    local y = a * b
    assert.equal(3, ta:gradient(y, a):item())
    local g, why = tb:gradient(y, a)
    assert.is_nil(g)
    assert.equal("unwatched", why.code)
    ta:close()
  end)

  it("are limited in number with a clear error, and forgotten ones are collected", function()
    for _ = 1, 300 do lt.tape() end
    local held = {}
    assert.error_matches(function()
      for i = 1, 65 do held[i] = lt.tape() end
    end, "64 tapes are open; close them")
    for _, tape in ipairs(held) do tape:close() end
  end)
end)

describe("recording", function()
  it("stops, resumes, pauses and is reset", function()
    local x = lt.variable(3)
    local tape = lt.tape{ persistent = true }
    tape:stop()
    local y = x * x
    tape:resume()
    assert.is_nil((tape:gradient(y, x)))
    assert.equal("paused", tape:explain(y, x).code)
    local z = tape:paused(function(a) return a * a end, x)
    assert.is_nil((tape:gradient(z, x)))
    assert.is_true(tape.listening)
    assert.error_matches(function() tape:paused(function() error("mine", 0) end) end, "^mine$")
    assert.is_true(tape.listening)
    local w = x * 5
    tape:reset()
    local g, why = tape:gradient(w, x)
    assert.is_nil(g)
    assert.equal("reset", why.code)
    assert.equal(7, tape:gradient(x * 7, x):item())
    tape:close()
  end)

  it("lists the variables it saw, in the order of their first use", function()
    local a, b, c = lt.variable(1), lt.variable(2), lt.variable(3)
    local tape <close> = lt.tape()
    local _ = b * a + b
    local seen = tape:watched_variables()
    assert.equal(2, #seen)
    assert.is_true(rawequal(seen[1], b) and rawequal(seen[2], a) and not rawequal(seen[2], c))
  end)

  it("leaves variables alone with watch_variables = false, and frozen ones always", function()
    local a, b = lt.variable(2), lt.variable(3, { trainable = false })
    local tape = lt.tape{ watch_variables = false }
    tape:watch(b)
    local g = tape:gradient(a * b, { a, b })
    assert.is_false(g[1])
    assert.equal(2, g[2]:item())
    tape = lt.tape()
    g = tape:gradient(a * b, { b })
    assert.is_false(g[1])
    assert.equal("frozen", g:why(b).code)
  end)

  it("does nothing inside no_grad, also when that raises", function()
    local x = lt.variable(3)
    local tape = lt.tape()
    local y = lt.no_grad(function() return x * x end)
    pcall(lt.no_grad, error)
    local z = y * x
    assert.equal(9, tape:gradient(z, x):item())
  end)

  it("gives a tape and results with record", function()
    local x = lt.variable(3)
    local tape, y, extra = lt.record(function() return x * x, "extra" end)
    assert.equal("extra", extra)
    assert.equal(6, tape:gradient(y, x):item())
  end)
end)

describe("a missing gradient has a reason", function()
  local w
  before_each(function() w = lt.variable({ 1, 2 }, { name = "w" }) end)

  local function reason(make)
    local g, why = make()
    assert.is_nil(g)
    assert.truthy(tostring(why):find("[" .. why.code .. "]", 1, true))
    return why
  end

  it("outside-tape: the use before the tape, by the user's line through modules", function()
    local model = lt.nn.Sequential{ lt.nn.Linear(2, 2), lt.nn.ReLU() }
    local use = line() + 1
    local y = model(lt.ones(1, 2))
    local tape = lt.tape()
    local why = reason(function() return tape:gradient(y:sum(), model:parameters()[1]) end)
    assert.equal("outside-tape", why.code)
    assert.equal(here(use), why.where)
    assert.equal("linear", why.op)
  end)

  it("stopped", function()
    local tape = lt.tape()
    local cut = line() + 1
    local y = lt.stop_gradient(w * 2) * 3
    local why = reason(function() return tape:gradient(y, w) end)
    assert.equal("stopped", why.code)
    assert.equal(here(cut), why.where)
    assert.equal("stop_gradient", why.op)
    assert.equal(1, #why.cuts)
  end)

  it("no-grad, unwatched, int-dtype, int-cast, nondiff-op, dead-end", function()
    local tape = lt.tape{ persistent = true }
    local x = lt.tensor{ 1, 2 }
    local n = lt.no_grad(function() return w * 2 end)
    assert.equal("no-grad", tape:explain(n, w).code)
    assert.equal("unwatched", tape:explain(x * 2, x).code)
    local i = lt.tensor({ 1, 2 }, { dtype = "int64" })
    assert.equal("int-dtype", tape:explain(i * w, i).code)
    assert.equal("int-cast", tape:explain(w:to("int64"):to("float32"), w).code)
    assert.equal("nondiff-op", tape:explain(w:gt(0):to("float32"), w).code)
    local dead = line() + 1
    local _ = w * 100
    local why = tape:explain(x * 3, w)
    assert.equal("dead-end", why.code)
    assert.equal(here(dead), why.where)
    tape:close()
    assert.equal("dead-end", tape:explain(x, w).code)
  end)

  it("partial: connected, with the cuts named", function()
    local tape = lt.tape{ persistent = true }
    local cut = line() + 1
    local y = w:detach() * w
    local why = tape:explain(y, w)
    assert.equal("partial", why.code)
    assert.equal(here(cut), why.cuts[1].where)
    assert.equal("ok", tape:explain(w * w, w).code)
    tape:close()
  end)
end)

describe("writing in place", function()
  it("to a value that the gradient needs is an error naming both lines", function()
    local x, v = lt.variable({ 2, 3 }, { name = "x" }), lt.variable({ 4, 5 })
    local tape = lt.tape()
    local saved = line() + 1
    local y = (x * v):sum()
    x:assign{ 0, 0 }
    local _, message = pcall(function() return tape:gradient(y, v) end)
    assert.truthy(message:find("'x'", 1, true))
    assert.truthy(message:find(here(saved), 1, true))
    assert.truthy(message:find(here(saved + 1), 1, true))
  end)

  it("to a recorded value is refused, through a view it is noticed", function()
    local x = lt.variable{ 1, 2 }
    local tape <close> = lt.tape()
    local h = x * 2
    assert.error_matches(function() h[1] = 5 end, "'the tensor' is recorded by the tape opened at")
    assert.error_matches(function() h:set(1, 5) end, "recorded by the tape")
    local row = h[1]
    tape:paused(function() row:assign(7) end)
    assert.error_matches(function() return h + 1 end, "overwritten in place at .* after a tape recorded it")
  end)

  it("carries no gradient, and says so", function()
    local w, x = lt.variable{ 1, 2 }, lt.zeros(2)
    local tape = lt.tape()
    x:assign(w * 2)
    local g, why = tape:gradient(x * 3, w)
    assert.is_nil(g)
    assert.equal("assigned", why.code)
  end)

  it("of variables inside a tape counts both reads", function()
    local w = lt.variable(3)
    local tape = lt.tape()
    local y = w * 2
    w:assign_add(1)
    assert.equal(7, tape:gradient(y + w * 5, w):item())
  end)
end)

describe("custom_gradient", function()
  it("takes the place of the real one, and is differentiable itself", function()
    local x = lt.variable({ 1, 2 }, { dtype = "float64" })
    local cube = lt.custom_gradient(function(a)
      return a ^ 3, function(dy) return dy * a ^ 2 * 30 end
    end)
    local outer <close> = lt.tape()
    local inner = lt.tape()
    local g = inner:gradient(cube(x):sum(), x)
    assert.same({ 30, 120 }, value(g))
    assert.same({ 60, 120 }, value(outer:gradient(g:sum(), x)))
  end)

  it("checks number and shape of what it returns, and survives errors", function()
    local x = lt.variable{ 1, 2 }
    local function ask(back)
      local tape <close> = lt.tape()
      return tape:gradient(lt.custom_gradient(function(a) return a * 1, back end)(x), x)
    end
    assert.error_matches(function() ask(function() return 1, 2 end) end,
      "1 inputs but the function at spec/tape_spec.lua:%d+ returned 2 gradients")
    assert.error_matches(function() ask(function() return lt.ones(3) end) end,
      "gradient 1 of the function at spec/tape_spec.lua:%d+ is 3, its input 2")
    assert.error_matches(function() ask(function() return "x" end) end, "a string, not a tensor")
    assert.error_matches(function() ask(function() error "mine" end) end, "mine")
    assert.error_matches(function() lt.custom_gradient(function() return 1 end)(x) end,
      "must return a tensor and a function")
    assert.is_nil((ask(function() return nil end)))
    local before = lt.memory().live
    for _ = 1, 50 do pcall(ask, function() error "mine" end) end
    collectgarbage()
    collectgarbage()
    assert.is_true(lt.memory().live <= before)
  end)
end)

describe("closing", function()
  it("drops at once what only the tape held, and keeps what the program holds", function()
    local x = lt.variable(lt.ones(1000, 100))
    collectgarbage()
    collectgarbage()
    local before = lt.memory().live
    local kept
    do
      local tape <close> = lt.tape()
      kept = (x * 2):exp()
      for _ = 1, 10 do local _ = (kept * x):exp() end
      collectgarbage()
      collectgarbage()
      assert.is_true(lt.memory().live >= before + 11 * 400000)
      assert.is_true(tape.listening)
    end
    assert.is_true(lt.memory().live <= before + 460000)
    assert.is_true(math.abs(kept:get(1, 1) - math.exp(2)) < 1e-5)
  end)

  it("is idempotent, and a closed tape answers with errors", function()
    local x = lt.variable(1)
    local tape = lt.tape()
    local y = x * x
    tape:close()
    tape:close()
    assert.error_matches(function() tape:gradient(y, x) end, "the tape is closed")
    assert.error_matches(function() tape:watch(y) end, "the tape is closed")
    assert.error_matches(function() tape:resume() end, "the tape is closed")
    assert.equal("tape (closed, 1 operations)", tostring(tape))
    assert.error_matches(function() return tape.nosuch end, "no field or method 'nosuch'")
  end)
end)

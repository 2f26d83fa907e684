-- What a program can do to the engine on purpose or by accident: finalizers, coroutines, handles
-- of other libraries, tapes in odd states, sizes beyond all bounds.
local lt = require "luatape"
local samples = require "spec.samples"

local function settle()
  collectgarbage()
  collectgarbage()
end

local meta = debug.getmetatable(lt.ones(1))
local tape_meta = debug.getmetatable(lt.tape())

describe("finalizers", function()
  for _, mode in ipairs { "generational", "incremental" } do
    it("may call ops while another op makes its results, " .. mode, function()
      local before = collectgarbage(mode, mode == "generational" and 1 or 100)
      local x, inside, met, i = lt.tensor { { 4, 2 }, { 1, 3 } }, false, 0, 0
      local function finalizer()
        if inside then met = met + 1 end
        assert(lt.tensor({ 3, 1, 2 }):sort(1):get(1) == 1)
        pcall(function() return x + lt.ones(5) end)
      end
      while met < 200 and i < 200000 do
        i = i + 1
        if i % 10 == 0 then setmetatable({}, { __gc = finalizer }) end
        inside = true
        local values, places = x:sort(2)
        inside = false
        assert(lt.is_tensor(values) and lt.is_tensor(places), i)
        assert(values:get(1, 1) == 2 and places:get(1, 1) == 2, i)
      end
      collectgarbage("generational", 20)
      collectgarbage("incremental", 200)
      collectgarbage(before)
      assert.is_true(met > 0)
    end)
  end

  it("may drop a tape with a custom gradient after its coroutine is gone", function()
    local f = lt.custom_gradient(function(x) return x * 2, function(dy) return dy * 2 end end)
    for _ = 1, 20 do
      local x, held = lt.variable { 1, 2 }, {}
      coroutine.wrap(function()
        held.tape = lt.tape()
        f(x):sum()
      end)()
      settle()
      assert.equal(2, held.tape.count)
      held.tape = nil
      settle()
    end
  end)

  it("called by hand are harmless, and so is what they leave behind", function()
    local x, tape = lt.variable { 1, 2 }, lt.tape()
    local y = x * x
    meta.__gc(x)
    meta.__gc(x)
    tape_meta.__gc(tape)
    tape_meta.__gc(tape)
    assert.error_matches(function() return x + 1 end, "add: x must be a tensor")
    assert.error_matches(function() return x.shape end, "must be a tensor")
    assert.error_matches(function() tape:gradient(y, y) end, "takes a tape")
    assert.error_matches(function() tape:close() end, "takes a tape")
    assert.same({ 1, 4 }, y:totable())
    for _ = 1, 100 do assert.equal(3, lt.variable(3):item()) end
  end)
end)

describe("handles", function()
  local foreign = { 1, "x", io.stdout, {}, print, coroutine.create(print), true }

  it("of other kinds are refused by every metamethod and method", function()
    local opt = lt.optim and lt.optim.SGD { lr = 1 }
    for _, value in ipairs(foreign) do
      for name, f in pairs(meta) do
        if type(f) == "function" and name ~= "__nearest" then pcall(f, value, value, value) end
      end
      for _, f in pairs(meta.__methods) do pcall(f, value, value) end
      for _, f in pairs(tape_meta) do
        if type(f) == "function" then pcall(f, value, value) end
      end
      for _, f in pairs(tape_meta.__methods) do pcall(f, value, value) end
    end
    assert.is_true(opt ~= nil)
    for name, f in pairs(meta) do
      if type(f) == "function" and name ~= "__nearest" then pcall(f) end
    end
    for _, f in pairs(tape_meta.__methods) do pcall(f) end
  end)

  it("of other libraries with our metatable are still not ours", function()
    local file = io.tmpfile()
    local own = debug.getmetatable(file)
    for _, mt in ipairs { meta, tape_meta } do
      debug.setmetatable(file, mt)
      assert.is_false(lt.is_tensor(file))
      assert.is_false(pcall(lt.add, file, 1))
      assert.is_false(pcall(lt.tape().watch, file, lt.ones(1)))
      mt.__gc(file)
      debug.setmetatable(file, own)
    end
    local tape, x = lt.tape(), lt.ones(2)
    debug.setmetatable(tape, meta)
    assert.is_false(pcall(lt.add, tape, 1))
    meta.__gc(tape)
    debug.setmetatable(tape, tape_meta)
    tape:close()
    debug.setmetatable(x, tape_meta)
    assert.is_false(pcall(tape_meta.__methods.close, x))
    tape_meta.__gc(x)
    debug.setmetatable(x, meta)
    assert.same({ 1, 1 }, x:totable())
    file:close()
  end)

  it("of an optimizer too", function()
    local function find(value, seen)
      if type(value) == "userdata" and not lt.is_tensor(value) then return value end
      if type(value) ~= "table" or seen[value] then return nil end
      seen[value] = true
      for _, v in pairs(value) do
        local found = find(v, seen)
        if found then return found end
      end
      return find(getmetatable(value), seen)
    end
    local opt = lt.optim.SGD { lr = 1 }
    local handle = find(opt, {})
    if not handle then return end
    local mt = debug.getmetatable(handle)
    mt.__gc(io.stdout)
    mt.__gc(lt.ones(1))
    mt.__gc(1)
    mt.__gc(handle)
    mt.__gc(handle)
    local w = lt.variable(1)
    assert.is_false(pcall(opt.apply_gradients, opt, { lt.ones(1) }, { w }))
  end)
end)

describe("coroutines", function()
  it("cannot take no_grad or a pause with them", function()
    local w = lt.variable(2)
    local tape = lt.tape { persistent = true }
    for _, f in ipairs { lt.no_grad, function(g) tape:paused(g) end } do
      local co = coroutine.create(function() f(function() coroutine.yield() end) end)
      local ok, message = coroutine.resume(co)
      assert.is_false(ok)
      assert.truthy(message:find "yield")
      assert.is_true(tape.listening)
      assert.equal(4, tape:gradient(w * w, w):item())
    end
    tape:close()
  end)

  it("may share a tape, and each sees its own lines", function()
    local w = lt.variable(3)
    local tape = lt.tape()
    local y = w
    local function worker() for _ = 1, 5 do y = y * w coroutine.yield() end end
    do
      local a, b = coroutine.wrap(worker), coroutine.wrap(worker)
      for _ = 1, 2 do a() b() end
    end
    settle()
    assert.equal(5 * 3 ^ 4, tape:gradient(y, w):item())
  end)

  it("that are dropped or closed give their tapes back", function()
    for i = 1, 300 do
      local co = coroutine.wrap(function()
        local tape <close> = lt.tape()
        coroutine.yield(tape.count)
      end)
      assert.equal(0, co(), i)
    end
  end)

  it("may ask for a gradient whose rule runs coroutines", function()
    local f = lt.custom_gradient(function(x)
      return x * 3, function(dy)
        local value
        for _ = 1, 3 do
          value = coroutine.wrap(function(d) coroutine.yield(d * 3) end)(dy)
          collectgarbage()
        end
        return value
      end
    end)
    local x = lt.variable { 1, 2 }
    local result
    coroutine.wrap(function()
      local tape = lt.tape()
      local y = coroutine.wrap(function() return f(f(x)) end)()
      result = tape:gradient(y:sum(), x)
    end)()
    settle()
    assert.same({ 9, 9 }, result:totable())
  end)
end)

describe("a tape", function()
  it("may be closed in its own walk, and is closed then", function()
    for _, how in ipairs { "close", "gc" } do
      local tape = lt.tape { persistent = true }
      local x = lt.variable { 1, 2 }
      local f = lt.custom_gradient(function(a)
        return a * 2, function(dy)
          if how == "gc" then tape_meta.__gc(tape) else tape:close() end
          return dy * 2
        end
      end)
      local g = tape:gradient(f(x * x):sum(), x)
      assert.same({ 4, 8 }, g:totable())
      assert.is_false(pcall(tape.resume, tape))
      assert.is_false(pcall(tape.gradient, tape, x, x))
      local other = lt.tape()
      assert.equal(6, (other:gradient((x * 3):sum(), x):sum():item()))
    end
  end)

  it("answers calls from its own walk with errors, and goes on", function()
    local tape = lt.tape { persistent = true }
    local x = lt.variable { 1, 2 }
    local messages, y = {}, nil
    local f = lt.custom_gradient(function(a)
      return a * 2, function(dy)
        for _, name in ipairs { "gradient", "reset", "watch" } do
          local ok, message = pcall(tape[name], tape, y, x)
          assert(not ok)
          messages[#messages + 1] = message
        end
        tape:paused(function() return x * x end)
        tape:stop()
        tape:resume()
        return dy * 2
      end
    end)
    y = f(x):sum()
    assert.same({ 2, 2 }, tape:gradient(y, x):totable())
    assert.equal(3, #messages)
    for _, message in ipairs(messages) do assert.truthy(message:find "walked already") end
    assert.is_true(tape.listening)
    assert.same({ 2, 2 }, tape:gradient(y, x):totable())
    tape:close()
  end)

  it("takes gradients of other tapes inside a rule", function()
    local x = lt.variable { 1, 2 }
    local f = lt.custom_gradient(function(a)
      return a * a, function(dy)
        local z = lt.variable(a)
        local inner = lt.tape()
        return dy * inner:gradient((z * z):sum(), z)
      end
    end)
    local tape = lt.tape()
    assert.same({ 2, 4 }, tape:gradient(f(x):sum(), x):totable())
  end)

  it("that used itself up or closed itself while paused stays so", function()
    local w = lt.variable(2)
    local tape = lt.tape()
    local y = w * w
    assert.equal(4, tape:paused(function() return tape:gradient(y, w):item() end))
    assert.is_true(tape.consumed)
    tape = lt.tape()
    assert.equal(7, tape:paused(function() tape:close() return 7 end))
    assert.is_true(tape.closed)
    tape = lt.tape()
    tape:paused(function() tape:resume() tape:stop() end)
    assert.is_true(tape.listening)
  end)

  it("restores what a failed walk changed", function()
    local w = lt.variable { 1, 2 }
    local bad = lt.custom_gradient(function(a) return a * 1, function() error("mine", 0) end end)
    local outer = lt.tape { persistent = true }
    for _ = 1, 3 do
      local inner = lt.tape()
      local y = bad(w):sum()
      assert.error_matches(function() inner:gradient(y, w) end, "mine")
    end
    local z = (w * w):sum()
    assert.same({ 2, 4 }, outer:gradient(z, w):totable())
    assert.truthy(tostring(outer:explain(z, lt.ones(1)).message):find "robustness_spec")
    assert.equal("ok", outer:explain(z, w).code)
    outer:close()
  end)

  it("can be opened 64 times at once, and again when they are gone", function()
    settle()
    for _ = 1, 3 do
      local tapes = {}
      local ok, message
      for i = 1, 65 do
        ok, message = pcall(lt.tape)
        if ok then tapes[i] = message end
      end
      assert.is_false(ok)
      assert.truthy(message:find "tapes are open")
      local w = lt.variable(2)
      local y = w * w
      for _, tape in ipairs(tapes) do assert.equal(4, tape:gradient(y, w):item()) end
    end
  end)

  it("takes absent inputs for nobody's values when it explains", function()
    local w, v = lt.variable { { 1, 2 } }, lt.variable { 3, 4 }
    local tape = lt.tape()
    local dead = v * 2
    local loss = lt.cross_entropy(w, lt.tensor({ 1 }, { dtype = "int64" }))
    local g, why = tape:gradient(lt.stop_gradient(loss), v)
    assert.is_nil(g)
    assert.equal("dead-end", why.code)
    assert.equal(2, #dead)
  end)
end)

describe("gradients", function()
  it("are memory of their own", function()
    local a, b = lt.variable { 1, 2 }, lt.variable { 3, 4 }
    local seed = lt.tensor { 1, 1 }
    local tape = lt.tape { persistent = true }
    local y = a + b
    local gs = tape:gradient(y, { a, b, y }, { output_gradients = seed })
    gs[1][1] = 10
    gs[2]:assign { 7, 7 }
    assert.same({ 10, 1 }, gs[1]:totable())
    assert.same({ 1, 1 }, gs[3]:totable())
    assert.same({ 1, 1 }, seed:totable())
    local g = tape:gradient(a:sum(), a)
    g[1] = 5
    assert.same({ 5, 1 }, g:totable())
    tape:close()
  end)

  it("survive the tape that gave them, also to second order", function()
    local x = lt.variable { 1, 2 }
    local outer = lt.tape()
    local inner = lt.tape()
    local y = (x * x * x):sum()
    local g = inner:gradient(y, x)
    inner:close()
    assert.same({ 6, 12 }, outer:gradient(g, x):totable())
  end)
end)

describe("writes in place", function()
  it("refuse elements that share memory", function()
    local x = lt.ones(1, 2):expand(3, 2)
    assert.error_matches(function() x[1] = 2 end, "share memory")
    assert.error_matches(function() x:set(1, 1, 2) end, "share memory")
    assert.error_matches(function() x:assign_add(x) end, "share memory")
    x:clone():assign(5)
    assert.equal(6, x:sum():item())
  end)

  it("read all of what they overwrite first", function()
    local x = lt.tensor { 1, 2, 3, 4, 5 }
    x[{ { 2, 5 } }] = x[{ { 1, 4 } }]
    assert.same({ 1, 1, 2, 3, 4 }, x:totable())
    x[{ { 1, 4 } }] = x[{ { 2, 5 } }]
    assert.same({ 1, 2, 3, 4, 4 }, x:totable())
    local m = lt.tensor { { 1, 2 }, { 3, 4 } }
    m:assign(m:transpose())
    assert.same({ { 1, 3 }, { 2, 4 } }, m:totable())
    m[m:gt(2)] = m[m:gt(2)] * 10
    assert.same({ { 1, 30 }, { 2, 40 } }, m:totable())
    m:assign_sub(m[1])
    assert.same({ { 0, 0 }, { 1, 10 } }, m:totable())
  end)
end)

describe("sizes", function()
  it("beyond all bounds are errors, not hangs", function()
    local big = 1 << 40
    local empty = lt.zeros(big, 0)
    assert.truthy(tostring(empty):find("1099511627776x0", 1, true))
    assert.error_matches(function() empty:totable() end, "totable")
    assert.error_matches(function() lt.zeros(1):expand(big):totable() end, "totable")
    assert.same({ {}, {} }, lt.zeros(2, 0):totable())
    assert.error_matches(function() return lt.zeros(big, big) end, "too many elements")
    assert.error_matches(function() return lt.zeros(big, big, 0) end, "too many elements")
    assert.error_matches(function() return lt.zeros(1):expand(big, big) end, "too many elements")
    assert.error_matches(function() return lt.zeros(math.maxinteger) end, "too many elements")
    assert.error_matches(function() return lt.zeros(math.mininteger) end, "negative")
    assert.truthy(tostring(lt.zeros(1):expand(big)):find "1099511627776")
  end)

  it("in indices neither", function()
    local x = lt.range(1, 10)
    local top, bottom = math.maxinteger, math.mininteger
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, x[{ { bottom, top } }]:totable())
    assert.same({ 1 }, x[{ { 1, top, top } }]:totable())
    assert.same({}, x[{ { top, bottom } }]:totable())
    for _, i in ipairs { top, bottom, 11 + 1, -11, 0 } do
      assert.error_matches(function() return x[i] end, "index")
      assert.error_matches(function() x[i] = 1 end, "index")
      assert.error_matches(function() return x:get(i) end, "index")
    end
    for _, i in ipairs { 1.5, 0 / 0, 1 / 0, 2 ^ 63, -2 ^ 70 } do
      assert.error_matches(function() return x[i] end, "integer")
      assert.error_matches(function() return x[{ { 1, i } }] end, "integer")
      assert.error_matches(function() return x:get(i) end, "integer")
    end
    assert.error_matches(function() return x[{ { first = 1 } }] end, "range")
  end)
end)

describe("integer division", function()
  it("by a number that is 0 in the type of the result is an error", function()
    local x = lt.tensor({ 1, 2 }, { dtype = "uint8" })
    local y = lt.tensor({ 1, 2 }, { dtype = "int32" })
    for _, f in ipairs { lt.floor_divide, lt.remainder, lt.fmod } do
      assert.error_matches(function() return f(x, 256) end, "division by zero")
      assert.error_matches(function() return f(y, 1 << 32) end, "division by zero")
      assert.error_matches(function() return f(x, 0) end, "division by zero")
      assert.equal("uint8", f(x, 257).dtype)
    end
  end)
end)

-- Each op runs under a tape; then its inputs and results are overwritten, one at a time, through
-- another window on their memory. The gradient must be what it was before, or an error.
describe("values overwritten before the gradient", function()
  local function gradient(tape, targets, sources)
    local found = tape:gradient(targets, sources, { unconnected_gradients = "zero" })
    for i, g in ipairs(found) do found[i] = g:totable() end
    return found
  end

  local function check(op, k, which)
    local arguments, sources, victims = samples.draw(op, k), {}, {}
    samples.map(arguments, function(t)
      if lt.is_tensor(t) then
        victims[#victims + 1] = t
        if t.dtype == "float64" then sources[#sources + 1] = t end
      end
      return t
    end)
    local tape <close> = lt.tape { persistent = true }
    for _, t in ipairs(sources) do tape:watch(t) end
    lt.manual_seed(1)
    local results, targets = table.pack(lt[op.name](table.unpack(arguments, 1, arguments.n))), {}
    for _, y in ipairs(results) do
      if lt.is_tensor(y) then
        victims[#victims + 1] = y
        if y.dtype == "float64" then targets[#targets + 1] = y end
      end
    end
    if not victims[which] then return false end
    if #targets == 0 or #sources == 0 or victims[which].ndim == 8 then return true end
    local before = gradient(tape, targets, sources)
    local window = victims[which]:unsqueeze(1)
    local written = lt.no_grad(pcall, window.assign, window, 1)
    local ok, after = pcall(gradient, tape, targets, sources)
    if ok then
      assert.same(before, after, op.name)
    else
      assert.is_true(written)
      assert.truthy(tostring(after):find("overwritten", 1, true), op.name .. ": " .. tostring(after))
    end
    return true
  end

  for _, op in ipairs(samples.ops()) do
    if op.differentiable and #op.samples > 0 then
      it("are noticed by " .. op.name, function()
        for k = 1, #op.samples do
          local which = 1
          while check(op, k, which) do which = which + 1 end
        end
      end)
    end
  end
end)

describe("call sites", function()
  it("of very many chunks are found quickly", function()
    local start = os.clock()
    for i = 1, 30000 do load("local lt = ... return lt.ones(1)", "=chunk" .. i)(lt) end
    assert.is_true(os.clock() - start < 5)
    local _, message = pcall(load("local w = ... return w:nosuch()", "=chunk42"), lt.ones(1))
    assert.truthy(message:find("^chunk42:1: "))
  end)
end)

-- minimize, and what optimizers say about variables, gradients and losses that are not what they
-- should be: by name, with the line of the cause, with a code.
local lt = require "luatape"
local optim = lt.optim
local globals = require "spec.globals"

local function close(expected, got, tolerance)
  local gap = math.abs(expected - got)
  assert(gap <= tolerance * math.max(1, math.abs(expected)),
    ("%.17g expected, got %.17g"):format(expected, got))
end

local function line() return debug.getinfo(2, "l").currentline end
local function here(n) return "spec/minimize_spec.lua:" .. n end

---Runs f and returns its error; the message must hold all the further texts.
local function refusal(f, ...)
  local ok, message = pcall(f)
  assert.is_false(ok)
  for _, text in ipairs { ... } do assert.matches(text, message, 1, true) end
  return message
end

describe("optim: minimize", function()
  local x, y = lt.tensor { { 1, 2 }, { 3, 4 }, { 5, 7 } }, lt.tensor { { 1 }, { 2 }, { 3 } }

  local function fixture()
    return lt.variable({ { 0.1 }, { 0.2 } }, { name = "w" }), lt.variable({ 0 }, { name = "b" })
  end

  it("opens the tape, steps, and returns the loss, a report and what else there was", function()
    local w, b = fixture()
    local opt = optim.Adam { lr = 0.05 }
    local first, last
    for _ = 1, 100 do
      local loss, report, more, again = opt:minimize(function()
        return ((x:matmul(w) + b - y) ^ 2):mean(), "more", nil
      end, { w, b })
      first, last = first or loss:item(), loss:item()
      assert.equal("more", more)
      assert.is_nil(again)
      assert.equal(2, #report)
    end
    assert.is_true(last < first / 10)
    assert.equal(100, opt.step)
  end)

  it("reports norms, ratios, status and reasons", function()
    local w, b = fixture()
    local idle = lt.variable({ 1 }, { name = "idle" })
    local dead = lt.variable({ 1 }, { name = "dead" })
    local real_warn = globals.warn
    globals.warn = function() end
    local opt = optim.SGD { lr = 0.5 }
    local old = w:clone()
    local loss, report = opt:minimize(function()
      return (w * lt.tensor { { 3 }, { 4 } }):sum() + b:sum() + (dead * 0):sum()
    end, { w, b, idle, dead })
    globals.warn = real_warn
    assert.equal(4, #report)
    assert.equal("w", report[1].name)
    assert.same({ 2, 1 }, report.w.shape)
    assert.equal("ok", report.w.status)
    close(5, report.w.gradient_norm, 1e-6)
    close((w - old):norm():item() / w:norm():item(), report.w.update_ratio, 1e-5)
    assert.equal("zero", report.dead.status)
    assert.equal(0, report.dead.update_ratio)
    assert.equal("missing", report.idle.status)
    assert.matches("[unused]", report.idle.reason, 1, true)
    assert.is_nil(report.idle.gradient_norm)
    local printed = tostring(report)
    assert.matches("variable +shape +gradient norm +update ratio +status\nw +2x1 +5 ", printed)
    assert.matches("\nidle +1 +%- +%- +missing: ", printed)
    assert.is_true(loss:item() > 0)
  end)

  for _, case in ipairs { { "Adam", { lr = 0.1 } }, { "AdamW", { lr = 0.1, amsgrad = true } },
    { "RMSprop", {} }, { "RMSprop", { centered = true } },
    { "RMSprop", { centered = true, momentum = 0.9, keras = true } }, { "Adagrad", { lr = 0.1 } },
    { "SGD", { lr = 0.1, momentum = 0.9, nesterov = true } },
    { "SGD", { lr = 0.1, momentum = 0.9, weight_decay = 0.01 } } } do
    it(("finds the update of %s again"):format(case[1]), function()
      local w = lt.variable({ 1, -2, 3 }, { dtype = "float64" })
      local opt, report, old = optim[case[1]](case[2]), nil, nil
      for _ = 1, 4 do
        old = w:clone()
        report = select(2, opt:minimize(function() return (w ^ 4):sum() end, { w }))
      end
      local ratio = (w - old):norm():item() / w:norm():item()
      assert.is_true(math.abs(report[1].update_ratio / ratio - 1) < 2e-3)
      local state = opt:state_dict()
      local late = select(2, opt:minimize(function() return (w ^ 4):sum() end, { w }))
      opt:minimize(function() return (w ^ 4):sum() end, { w })
      assert.is_nil(late[1].update_ratio) -- another step was taken
      assert.is_number(late[1].gradient_norm)
      assert.equal(4, state.step)
    end)
  end

  it("takes the variables of its groups, or all that were used", function()
    local w, b = fixture()
    local function loss() return ((x:matmul(w) + b - y) ^ 2):mean() end
    local _, report = optim.SGD { params = { b } }:minimize(loss)
    assert.equal(1, #report)
    assert.equal("b", report[1].name)
    assert.same({ { lt.tensor(0.1):item() }, { lt.tensor(0.2):item() } }, w:totable())
    _, report = optim.SGD {}:minimize(loss)
    assert.equal(2, #report)
    _, report = optim.SGD {}:minimize(loss, w)
    assert.equal(1, #report)
  end)
end)

describe("optim: what is minimized", function()
  local w, opt
  before_each(function()
    w = lt.variable({ 1, 2 }, { name = "w" })
    opt = optim.Adam {}
  end)
  after_each(function()
    assert.same({ 1, 2 }, w:totable())
    assert.equal(0, opt.step)
  end)

  it("must come from a function, which has to return it", function()
    refusal(function() opt:minimize(w:sum(), { w }) end, "takes a function", "[outside-tape]")
    refusal(function() opt:minimize(function() end, { w }) end, "got nil; is there a return?")
    refusal(function() opt:minimize(function() return "x" end, { w }) end, "got string")
    refusal(function() opt:minimize(function() return w:sum() end, {}) end, "got an empty table")
    refusal(function() opt:minimize(function() return w:sum() end, 5) end, "got a number")
    assert.error_matches(function() opt:minimize(function() error("mine", 0) end, { w }) end, "^mine$")
  end)

  it("is no number: the line that read it is named", function()
    local read = line() + 1
    local function f() return w:sum():item() + 0 end
    refusal(function() opt:minimize(f, { w }) end,
      "as a tensor, got number 3, read by item at " .. here(read) .. " [left-tensors]")
    local function g() return w:sum():item() * 7 end
    refusal(function() opt:minimize(g, { w }) end,
      "got number 21; numbers were last read by item at " .. here(read + 3) .. " [left-tensors]")
    refusal(function() opt:minimize(function() return lt.no_grad(function() return 5 end) end, { w }) end,
      "got number 5")
  end)

  it("is no tensor made elsewhere: where, and the reason", function()
    local made = line() + 1
    local loss = (w * w):sum()
    refusal(function() opt:minimize(function() return loss end) end,
      "used no trainable variable; its loss was made by sum at " .. here(made) .. " [outside-tape]",
      "Compute it inside the function")
    refusal(function() opt:minimize(function() return loss end, { w }) end,
      "the loss, made by sum at " .. here(made) .. ", has no history on this tape",
      "no gradients provided for any variable", "with respect to 'w' [outside-tape]")
    local read = line() + 1
    local function rebuilt() return lt.tensor(w:sum():item()) end
    refusal(function() opt:minimize(rebuilt, { w }) end,
      "made of a number read by item at " .. here(read), "[left-tensors]")
    refusal(function() opt:minimize(rebuilt) end, "[left-tensors]")
    refusal(function() opt:minimize(function() return w:sum():detach() end, { w }) end,
      "made by detach", "[stopped]")
    refusal(function() opt:minimize(function() return w:argmax() end, { w }) end,
      "the loss is int64, made by argmax at " .. here(line() - 1), "[int-dtype]")
    refusal(function() opt:minimize(function() return w:gt(0):to("float32"):sum() end, { w }) end,
      "[nondiff-op]")
    refusal(function()
      opt:minimize(function() return lt.no_grad(function() return w:sum() end) end)
    end, "[no-grad]", "outside lt.no_grad")
    refusal(function() opt:minimize(function() return lt.tensor(-271.25) end) end,
      "used no trainable variable", "[unused]")
    refusal(function() opt:minimize(function() return lt.tensor(-271.5, { name = "l" }) end, { w }) end,
      "the loss 'l', made by tensor", "[unused]")
  end)
end)

describe("optim: variables and gradients", function()
  local said, real_warn
  before_each(function()
    said, real_warn = {}, globals.warn
    globals.warn = function(...) said[#said + 1] = table.concat { ... } end
  end)
  after_each(function() globals.warn = real_warn end)

  ---Variables a, b, c ... of one shape.
  local function variables(names)
    local list = {}
    for name in names:gmatch "%a" do list[#list + 1] = lt.variable({ 1, 2 }, { name = name }) end
    return table.unpack(list)
  end

  it("must be the optimizer's: its line is named, and the variable", function()
    local a, b = variables "ab"
    local made = line() + 1
    local opt = optim.Adam { params = { a } }
    local message = refusal(function() opt:apply_gradients({ lt.zeros(2), lt.ones(2) }, { a, b }) end,
      "'b' (2) belongs to no parameter group of the Adam made at " .. here(made) .. " [foreign]")
    assert.equal(here(line() - 2), message:match "^(.-): ")
    refusal(function() opt:minimize(function() return (a * b):sum() end, { a, b }) end, "[foreign]")
    assert.same({ 1, 2 }, a:totable())
  end)

  it("in another order than the gradients are refused, though the shapes agree", function()
    local a, b, c = variables "abc"
    local function gradients(sources)
      local tape <close> = lt.tape()
      return tape:gradient((a * b * b):sum(), sources)
    end
    local opt = optim.SGD { lr = 1 }
    local text = "at the place of 'b' (2) stands the gradient of 'a' (2)"
    refusal(function() opt:apply_gradients(gradients { a, b }, { b, a }) end, text, "[order]")
    refusal(function() opt:apply_gradients(gradients { x = { a }, y = b }, { x = { b }, y = a }) end,
      text, "[order]")
    local clipped = optim.clip_by_norm(gradients { a, b }, 1)
    refusal(function() opt:apply_gradients(clipped, { b, a }) end, text, "[order]")
    assert.same({ 1, 2, 1, 2 }, { a:get(1), a:get(2), b:get(1), b:get(2) })
    -- another table of the same order, and plain tables without a memory
    assert.is_true(opt:apply_gradients(gradients { a, b }, { a, b }))
    local g = gradients { a, b }
    assert.is_true(opt:apply_gradients({ g[2], g[1] }, { b, a }))
    -- one variable's gradient for another one of the optimizer's
    assert.is_true(opt:apply_gradients(gradients { a, c }, { a, c }))
    refusal(function() opt:apply_gradients(gradients { a, b }, { a, c }) end,
      "at the place of 'c' (2) stands the gradient of 'b' (2)")
  end)

  it("of a copy may move the original", function()
    local a, fast = variables "af"
    local tape = lt.tape()
    local g = tape:gradient((fast * fast):sum(), { fast })
    assert.is_true(optim.SGD { lr = 0.5 }:apply_gradients(g, { a }))
    assert.same({ 0, 0 }, a:totable())
  end)

  it("that miss for one cause share one warning, given once", function()
    local a, b, c, d = variables "abcd"
    local opt = optim.SGD { lr = 0.1 }
    local function step()
      opt:minimize(function() return (a * a):sum() end, { a, b, c, d })
    end
    local at = line() - 2
    step()
    step()
    assert.equal(1, #said)
    assert.matches("^" .. here(at):gsub("%p", "%%%0") .. ": no gradient of ", said[1])
    assert.matches("with respect to 'b' [unused]", said[1], 1, true)
    assert.matches("\n  The same holds for c, d.", said[1], 1, true)
    local e = variables "e"
    opt:minimize(function() return (a * a):sum() end, { a, b, e })
    assert.equal(2, #said)
    assert.matches("'e'", said[2], 1, true)
  end)

  it("that miss for two causes have two warnings; what is cut on purpose has none", function()
    local a, b, c, d, e = variables "abcde"
    e.trainable = false
    local opt = optim.SGD { lr = 0.1 }
    opt:minimize(function()
      local _ = c * 2
      return (a * a + lt.stop_gradient(d) + e):sum()
    end, { a, b, c, d, e })
    assert.equal(2, #said)
    assert.matches("'b' [unused]", said[1], 1, true)
    assert.matches("'c' [dead-end]", said[2], 1, true)
  end)

  it("that all miss are an error, also on purpose; each cause once, with its variables", function()
    local a, b, c = variables "abc"
    local opt = optim.SGD { lr = 0.1 }
    local before = a * b
    local message = refusal(function()
      opt:minimize(function() return before:sum() + lt.stop_gradient(c):sum() end, { a, b, c })
    end, "no gradients provided for any variable", "'a' [outside-tape]", "The same holds for b.",
      "'c' [stopped]")
    assert.is_nil(message:find("with respect to 'b'", 1, true))
    assert.same({}, said)
    assert.equal(0, opt.step)
    refusal(function()
      opt:minimize(function() return lt.stop_gradient(c):sum() end, { c })
    end, "'c' [stopped]")
  end)

  it("of many names are told of with a number", function()
    local list = {}
    for i = 1, 40 do list[i] = lt.variable({ 1 }, { name = "v" .. i }) end
    optim.SGD {}:minimize(function() return (list[1] * 2):sum() end, list)
    assert.equal(1, #said)
    assert.matches("The same holds for v3, .*, v18 and 22 more%.", said[1])
  end)

  it("keep their reasons when they are clipped", function()
    local a, b = variables "ab"
    local tape = lt.tape()
    local g = tape:gradient((a * 2):sum(), { a, b })
    for _, clipped in ipairs { optim.clip_by_norm(g, 1), (optim.clip_by_global_norm(g, 1)) } do
      assert.is_false(clipped[2])
      assert.equal("unused", clipped:why(b).code)
    end
  end)

  it("show in the report, one line each", function()
    local a, b, c = variables "abc"
    local opt = optim.SGD { lr = 0.1 }
    local _, report = opt:minimize(function() return (a * c):sum() end, { a, b, c })
    local printed = tostring(report)
    local _, breaks = printed:gsub("\n", "")
    assert.equal(3, breaks)
    assert.matches("\nb +2 +%- +%- +missing: b was not used .* %[unused%]\n", printed)
    assert.matches("\nc +2 +2%.24 +[%d.]+ +ok$", printed)
  end)
end)

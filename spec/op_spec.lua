-- Every op of the registry, from its own samples: it is documented, does not mind how its tensors
-- are stored, has the first and second derivatives that finite differences show, and refuses wrong
-- arguments by a message that names it.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local derivatives = require "spec.derivatives"
local call, floats, noise, inner = derivatives.call, derivatives.floats, derivatives.noise,
  derivatives.inner
local derive, with = derivatives.derive, derivatives.with
local first_value, second_value = derivatives.first_value, derivatives.second_value

-- ---- Derivatives --------------------------------------------------------------------------------

-- PyTorch's gradient of ctc_loss is right only behind log_softmax: spec/loss_spec.lua tests it there.
local NOT_PARTIAL = { ctc_loss = true }

local STEP = 2 ^ -17
local TOLERANCE = 1e-6

---Compares the gradients of `value` with its central differences along one random direction for
---each input. A missing gradient counts as zero.
local function check_derivative(op, arguments, value, gradients)
  local sources = floats(arguments)
  for i, x in ipairs(sources) do
    local direction = noise(x, 1000 + i)
    local function along(step)
      local moved = { table.unpack(sources) }
      moved[i] = x + direction * step
      return value(op, with(arguments, moved)):item()
    end
    local expected = (along(STEP) - along(-STEP)) / (2 * STEP)
    local got = gradients[i] and inner({ gradients[i] }, { direction }):item() or 0
    local scale = math.max(1, math.abs(expected), math.abs(along(0)))
    assert(math.abs(got - expected) <= TOLERANCE * scale,
      ("along float input %d the gradient is %.12g%s, differences say %.12g"):format(
        i, got, gradients[i] and "" or " (missing)", expected))
  end
end

-- ---- Storage ------------------------------------------------------------------------------------

local layouts = {}

---Stored with the last two dims swapped.
function layouts.transposed(x)
  if x.ndim < 2 then return x end
  return x:transpose(-2, -1):contiguous():transpose(-2, -1)
end

---Every second element, from the second on, of a larger tensor.
function layouts.window(x)
  if x.ndim == 0 then
    local row = lt.zeros({ 3 }, { dtype = x.dtype })
    row[2] = x
    return row[2]
  end
  local sizes, places = {}, {}
  for d, n in ipairs(x.shape) do
    sizes[d] = n > 0 and 2 * n + 1 or 0
    places[d] = n > 0 and { 2, 2 * n, 2 } or {}
  end
  local larger = lt.zeros(sizes, { dtype = x.dtype })
  larger[places] = x
  return larger[places]
end

---The first slice, seen again and again without a copy.
function layouts.repeated(x)
  if x.ndim == 0 or x.shape[1] == 0 then return x end
  return x[{ { 1, 1 } }]:expand(x.shape)
end

local function compact(x) return values.tensor(values.read(x)) end

local EXACT = { rtol = 1e-11, atol = 1e-11 }
local SINGLE = { rtol = 1e-4, atol = 1e-4 }

---Are these the expected tensors? `dtypes` says which types are expected instead of others.
local function assert_same(what, got, expected, tol, dtypes)
  for k, t in ipairs(expected) do
    local name = ("%s %d"):format(what, k)
    if t then
      local ref = values.read(t)
      ref.dtype = dtypes and dtypes[ref.dtype] or ref.dtype
      local difference = values.difference(name, got[k], ref, nil, tol)
      assert(not difference, difference)
    else
      assert(not got[k], name .. ": there is one")
    end
  end
end

---Does the op draw numbers of its own?
local function is_random(op, arguments)
  return not pcall(assert_same, "", call(op, arguments, 2), call(op, arguments, 3), EXACT)
end

---Outputs and gradients on tensors stored by `layout` and on compact copies of them are equal.
local function check_layout(op, arguments, name, layout)
  local stored = samples.map(arguments, layout)
  local fine, outputs, gradients = pcall(derive, op, samples.map(stored, compact))
  local stored_fine, stored_outputs, stored_gradients = pcall(derive, op, stored)
  assert(fine == stored_fine, ("%s: %s"):format(name, fine and stored_outputs or outputs))
  if not fine then return end -- repeated rows may be no valid input, such as singular matrices
  assert_same(name .. " output", stored_outputs, outputs, EXACT)
  assert_same(name .. " gradient", stored_gradients, gradients, EXACT)
end

-- ---- Wrong arguments ----------------------------------------------------------------------------

---Calls that must fail: { what is wrong, inputs, options, words the message must hold }.
local function wrong_calls(op)
  local inputs, options = samples.split(op, samples.draw(op, 1))
  local list = {}
  local function add(what, changed_inputs, changed_options, words)
    list[#list + 1] = { what, changed_inputs or inputs, changed_options or options, words or {} }
  end
  local function input(i, v)
    local changed = { table.unpack(inputs, 1, inputs.n) }
    changed[i], changed.n = v, inputs.n
    return changed
  end
  local function option(name, v)
    local changed = {}
    for key, value in pairs(options) do changed[key] = value end
    changed[name] = v
    return changed
  end

  local known = {}
  for _, o in ipairs(op.options) do known[#known + 1] = o.name end
  add("an unknown option", nil, option("nosuch", 1), known)

  local one = lt.ones({ 2, 2 })
  for i, declared in ipairs(op.inputs) do
    local function add_input(what, v) add(declared.name .. " is " .. what, input(i, v)) end
    if not declared.optional then
      add_input("nil", nil)
      add_input("a table with a hole", { one, nil, one })
    end
    add_input("a string", "text")
    add_input("a table of strings", { "a", "b" })
    add_input("a function", print)
    add_input("true", true)
    if declared.list then add_input("an empty list", {}) end
    if declared.accepts == "index" or declared.accepts == "mask" then
      add_input("a float tensor", one)
    elseif declared.accepts == "float" and not op.elementwise then
      local bool = lt.ones({ 2, 2 }, { dtype = "bool" })
      add_input("a bool tensor", declared.list and { bool } or bool)
    end
  end

  local bad = {
    int = { "text", 1.5, {}, true }, number = { "text", {}, true }, bool = { 1, "true", {} },
    choice = { "nosuch", 1, {} }, dim = { 0, 99, -99, "text", 1.5, {} },
    dims = { 0, 99, { 99 }, { -99 }, { "text" }, { 1.5 }, "text", true, { {} } },
    sizes = { "text", { "text" }, { 1.5 }, true, { {} }, { 1, 1, 1, 1, 1, 1, 1, 1, 1 } },
    index = { 0, "text", 1.5 }, dtype = { "float99", 1, {} },
    ints = { "text", { "text" }, { 1.5 }, true, { {} } }, pairs = { "text", { "text" }, { 1.5 }, true },
    numbers = { "text", { "text" }, true }, text = { 1, true, {} },
  }
  for _, o in ipairs(op.options) do
    for _, v in ipairs(bad[o.type]) do
      local words = {}
      for word in (o.choices or ""):gmatch "%S+" do words[#words + 1] = word end
      local text = type(v) == "table" and "{" .. tostring(v[1] or "") .. "}" or tostring(v)
      add(("%s = %s"):format(o.name, text), nil, option(o.name, v), words)
    end
  end
  return list
end

local function check_refused(op, what, words, fine, message)
  assert(not fine, what .. ": was accepted")
  assert(type(message) == "string", what .. ": the error is no string")
  local head = op.name:gsub("%p", "%%%0") .. ":"
  assert(message:find(head), ("%s: the message does not name the op: %s"):format(what, message))
  for _, word in ipairs(words) do
    assert(message:find(word, 1, true), ("%s: no '%s' in: %s"):format(what, word, message))
  end
end

-- ---- 0-d and empty tensors ----------------------------------------------------------------------

---The arguments with every tensor replaced by one of this shape.
local function reshaped(op, shape)
  local positive = samples.generators(samples.random(7)).positive
  return samples.map(samples.draw(op, 1), function(t)
    return positive(table.unpack(shape)):to(t.dtype)
  end)
end

local function shape_text(t) return table.concat(t.shape, "x") end

---A result, or a message that names the op. Ops that keep a shape keep this one too.
local function check_shape(op, shape)
  local ok, plain = pcall(call, op, reshaped(op, { 2, 3 }))
  local keeps = ok and values.is_tensor(plain[1]) and shape_text(plain[1]) == "2x3"
  local fine, outputs, gradients = pcall(derive, op, reshaped(op, shape))
  local what = "tensors of shape {" .. table.concat(shape, ",") .. "}"
  if op.elementwise then assert(fine, what .. ": " .. tostring(outputs)) end
  if not fine then return check_refused(op, what, {}, fine, outputs) end
  if not keeps then return end
  assert.same(shape, values.read(outputs[1]).shape, what)
  for _, g in ipairs(gradients) do
    if g then assert.same(shape, values.read(g).shape, what .. ", gradient") end
  end
end

-- ---- The specs ----------------------------------------------------------------------------------

for _, op in ipairs(samples.ops()) do
  local function each_sample(f)
    for k = 1, #op.samples do
      local ok, message = pcall(f, samples.draw(op, k), k)
      if not ok then
        error(("lt.%s(%s): %s"):format(op.name, op.samples[k], tostring(message)), 0)
      end
    end
  end

  describe("op " .. op.name, function()
    it("has a doc and samples", function()
      assert.is_true(#op.doc > 0)
      assert.is_true(#op.samples > 0)
      for _, o in ipairs(op.options) do assert.is_true(#o.name > 0) end
    end)

    it("is a function, and a method where it says so", function()
      each_sample(function(arguments)
        local outputs = call(op, arguments)
        local x = arguments[1]
        if op.method and values.is_tensor(x) then
          lt.manual_seed(1)
          assert_same("method", values.results(x[op.name], table.unpack(arguments, 1, arguments.n)),
            outputs, EXACT)
        end
      end)
    end)

    it("gives the same however tensors are stored", function()
      each_sample(function(arguments)
        for name, layout in pairs(layouts) do check_layout(op, arguments, name, layout) end
      end)
    end)

    it("gives nearly the same in float32", function()
      each_sample(function(arguments)
        if is_random(op, arguments) then return end -- each type has numbers of its own
        local outputs, gradients = derive(op, arguments)
        local single, single_gradients = derive(op, samples.map(arguments, function(t)
          return t.dtype == "float64" and t:to "float32" or t
        end))
        local _, options = samples.split(op, arguments)
        local halved = #floats(arguments) > 0 and { float64 = "float32" } or nil
        assert_same("float32 output", single, outputs, SINGLE, not options.dtype and halved)
        assert_same("float32 gradient", single_gradients, gradients, SINGLE, halved)
      end)
    end)

    if op.differentiable then
      it("has the gradient that differences show", function()
        each_sample(function(arguments)
          if NOT_PARTIAL[op.name] then return end
          local _, gradients = derive(op, arguments)
          check_derivative(op, arguments, first_value, gradients)
        end)
      end)

      it("has the second derivative that differences show", function()
        each_sample(function(arguments)
          if #select(2, derive(op, arguments)) == 0 then return end
          check_derivative(op, arguments, second_value, derivatives.second_gradients(op, arguments))
        end)
      end)
    else
      it("has no gradient", function()
        each_sample(function(arguments)
          local _, gradients = derive(op, arguments)
          for i, g in ipairs(gradients) do assert(not g, "there is one for input " .. i) end
        end)
      end)
    end

    it("takes 0-d and empty tensors, or says why not", function()
      for _, shape in ipairs { {}, { 0 }, { 0, 3 }, { 3, 0 }, { 2, 0, 3 } } do
        if #op.inputs > 0 then check_shape(op, shape) end
      end
    end)

    it("refuses wrong arguments", function()
      local needs = false
      for _, declared in ipairs(op.inputs) do needs = needs or not declared.optional end
      for _, o in ipairs(op.options) do needs = needs or o.required end
      if needs then check_refused(op, "no arguments", {}, pcall(lt[op.name])) end
      for _, wrong in ipairs(wrong_calls(op)) do
        local what, inputs, options, words = table.unpack(wrong)
        local arguments = { table.unpack(inputs, 1, inputs.n) }
        arguments[inputs.n + 1] = options
        check_refused(op, what, words,
          pcall(lt[op.name], table.unpack(arguments, 1, inputs.n + 1)))
      end
    end)
  end)
end

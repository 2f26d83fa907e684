--- Checking gradients against differences, and finding the op that is wrong.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local nested = core.import "luatape.nested"

local fail, is_tensor = arguments.fail, lt.is_tensor

--- Tensors of a result or argument list, also where it holds other values.
local function tensors_of(values)
  local list = {}
  for i = 1, values.n do
    local v = values[i]
    if is_tensor(v) or (type(v) == "table" and not getmetatable(v)) then
      for _, t in ipairs(nested.flatten(v, "gradcheck")) do list[#list + 1] = t end
    end
  end
  return list
end

local function is_float(t) return t.dtype == "float64" or t.dtype == "float32" end

local function keep_floats(list)
  local kept = {}
  for _, t in ipairs(list) do if is_float(t) then kept[#kept + 1] = t end end
  return kept
end

--- "2,3" of element number k of t, row by row.
local function place(t, k)
  local parts = {}
  for d = t.ndim, 1, -1 do
    local size = t.shape[d]
    table.insert(parts, 1, (k - 1) % size + 1)
    k = (k - 1) // size + 1
  end
  return #parts > 0 and "[" .. table.concat(parts, ",") .. "]" or ""
end

--- The float results of f with one input replaced.
local function results_of(f, inputs, i, x)
  local changed = table.move(inputs, 1, #inputs, 1, {})
  changed[i] = x
  return keep_floats(tensors_of(table.pack(f(table.unpack(changed)))))
end

--- The column of element k of input i by central differences: one flat table for each result.
local function differences(f, inputs, i, k, eps)
  local x = inputs[i]
  local step = lt.zeros({ x:numel() }, { dtype = x.dtype })
  step[k] = eps
  step = step:reshape(x.shape)
  local columns = {}
  local above, below = results_of(f, inputs, i, x + step), results_of(f, inputs, i, x - step)
  if #above ~= #below then
    fail("gradcheck: the function returns %d tensors, then %d", #above, #below)
  end
  for r, y in ipairs(above) do
    columns[r] = ((y - below[r]) / (2 * eps)):reshape(-1):totable()
  end
  return columns
end

local function near(a, b, options)
  if a ~= a or b ~= b then return a ~= a and b ~= b end
  return math.abs(a - b) <= options.atol + options.rtol * math.abs(b)
end

--- All entries of all Jacobians that differ: how many, of how many, and the first in words.
local function compare(f, inputs, tape, results, sources, options)
  local wrong, entries, first = 0, 0, nil
  local jacobian = {}
  for r, y in ipairs(results) do
    jacobian[r] = {}
    for i, J in ipairs(tape:jacobian(y, sources, { unconnected_gradients = "zero" })) do
      jacobian[r][i] = J:reshape(y:numel(), -1):transpose(1, 2):totable()
    end
  end
  for i, x in ipairs(inputs) do
    for k = 1, x:numel() do
      for r, column in ipairs(differences(f, inputs, i, k, options.eps)) do
        for j, expected in ipairs(column) do
          local got = jacobian[r][i][k][j]
          entries = entries + 1
          if not near(got, expected, options) then
            wrong = wrong + 1
            first = first or ("d result %d%s / d input %d%s is %.9g by the tape, %.9g by differences")
              :format(r, place(results[r], j), i, place(x, k), got, expected)
          end
        end
      end
    end
  end
  return wrong, entries, first
end

--- The derivative of <results, noise> of a node along a random direction: by its gradient, and by
--- differences. nil where there is none.
local function check_node(run, inputs, eps)
  local floats, direction = {}, {}
  for i, t in ipairs(inputs) do
    if t and is_float(t) then
      floats[#floats + 1] = i
      direction[i] = lt.randn(t.shape, { dtype = t.dtype })
    end
  end
  local weights = {}
  local function value(list)
    local sum
    for r, y in ipairs(keep_floats(table.pack(run(list)))) do
      weights[r] = weights[r] or lt.randn(y.shape, { dtype = y.dtype })
      local part = (y * weights[r]):sum()
      sum = sum and sum + part or part
    end
    return sum
  end
  local function along(step)
    local moved = table.move(inputs, 1, #inputs, 1, {})
    for _, i in ipairs(floats) do moved[i] = inputs[i] + direction[i] * step end
    return value(moved):item()
  end
  if #floats == 0 then return nil end
  local copy, sources = table.move(inputs, 1, #inputs, 1, {}), {}
  for k, i in ipairs(floats) do
    copy[i] = core.alias(inputs[i])
    sources[k] = copy[i]
  end
  local tape <close> = lt.tape { watch_variables = false }
  for _, t in ipairs(sources) do tape:watch(t) end
  local y = value(copy)
  if not y then return nil end
  local got = 0
  for k, g in ipairs(tape:gradient(y, sources, { unconnected_gradients = "zero" })) do
    got = got + (g * direction[floats[k]]):sum():item()
  end
  return got, (along(eps) - along(-eps)) / (2 * eps)
end

--- Lines for the ops whose own gradient is not what differences say, at the values of this run.
local function find_culprits(tape, customs, options)
  local lines, seen = {}, 0
  for k = 1, tape.count do
    local op, where, inputs, is_custom = core.node(tape, k)
    local run = function(list) return core.rerun(tape, k, list) end
    if is_custom then
      seen = seen + 1
      local f = customs[seen]
      run = f and function(list) return lt.custom_gradient(f)(table.unpack(list)) end
    end
    if run then
      local got, expected = check_node(run, inputs, options.eps)
      if got and not near(got, expected, options) then
        lines[#lines + 1] = ("  the gradient of %s at %s is wrong there: along a random direction "
          .. "%.9g, by differences %.9g"):format(op, where, got, expected)
      end
    end
  end
  return lines
end

--- Checks the gradient of f at the inputs against central differences, element by element, and
--- raises an error that names the entries that differ and the op, with its line, whose own gradient
--- is wrong (a custom_gradient, or an op at a kink), or else where the gradient is cut. All float
--- inputs must be float64, where differences mean something. PyTorch's gradcheck.
---@param f fun(...): ... tensors, or tables of them
---@param inputs luatape.tensor|luatape.tensor[] the arguments of f
---@param options { eps: number?, atol: number?, rtol: number? }?
---  eps (1e-6): the step; an entry is right if |a - b| <= atol (1e-5) + rtol (1e-3) |b|
---@return boolean true
function lt.gradcheck(f, inputs, options)
  options = arguments.options("gradcheck", options, { eps = true, atol = true, rtol = true })
  options = {
    eps = arguments.number("gradcheck", "eps", options.eps or 1e-6),
    atol = arguments.number("gradcheck", "atol", options.atol or 1e-5, 0),
    rtol = arguments.number("gradcheck", "rtol", options.rtol or 1e-3, 0),
  }
  if type(f) ~= "function" and not (getmetatable(f) and getmetatable(f).__call) then
    fail("gradcheck: takes a function, got %s", type(f))
  end
  if is_tensor(inputs) then inputs = { inputs } end
  if type(inputs) ~= "table" then
    fail("gradcheck: inputs must be a tensor or a table of tensors, got %s", type(inputs))
  end
  local which = {}
  for i, x in ipairs(inputs) do
    if not is_tensor(x) then fail("gradcheck: input %d is not a tensor", i) end
    if x.is_sparse then fail("gradcheck: input %d is a sparse gradient; use x:to_dense()", i) end
    if x.dtype == "float32" then
      fail("gradcheck: input %d is float32; differences need float64 (x:to(\"float64\"))", i)
    end
    if is_float(x) then which[#which + 1] = i end
  end
  if #which == 0 then fail("gradcheck: no input is a float tensor") end
  local args, sources, floats = table.move(inputs, 1, #inputs, 1, {}), {}, {}
  for k, i in ipairs(which) do
    args[i] = core.alias(inputs[i])
    sources[k], floats[k] = args[i], inputs[i]
  end
  local function of_floats(...)
    local all = table.move(inputs, 1, #inputs, 1, {})
    for k, i in ipairs(which) do all[i] = select(k, ...) end
    return f(table.unpack(all))
  end

  local customs, outer = {}, core.custom_called
  local tape <close> = core.tape_new(core.tape_meta, true, false, false, true)
  for _, t in ipairs(sources) do tape:watch(t) end
  core.custom_called = function(g) customs[#customs + 1] = g end
  local results = table.pack(pcall(f, table.unpack(args)))
  core.custom_called = outer
  tape:stop()
  if not results[1] then error(results[2], 0) end
  table.remove(results, 1)
  results.n = results.n - 1
  local ys = keep_floats(tensors_of(results))
  if #ys == 0 then fail("gradcheck: the function returns no float tensor") end

  local wrong, entries, first = compare(of_floats, floats, tape, ys, sources, options)
  if wrong == 0 then return true end
  local lines = find_culprits(tape, customs, options)
  if #lines == 0 then
    for i, x in ipairs(sources) do
      local why = tape:explain(ys, x)
      for _, cut in ipairs(why.cuts) do
        lines[#lines + 1] = ("  %s at %s cuts a path to input %d [%s]"):format(cut.op, cut.where, i,
          cut.code)
      end
      if #why.cuts == 0 and why.code ~= "ok" then
        lines[#lines + 1] = ("  input %d: %s"):format(i, tostring(why))
      end
    end
  end
  if #lines == 0 then
    lines[1] = "  every recorded op is right by itself: something reaches the result outside the tape"
  end
  fail("gradcheck: %s (%d of %d entries differ)\n%s", first, wrong, entries,
    table.concat(lines, "\n"))
end

--- What the reference says of an op: its block in the registry, and what the engine answers when the
--- first sample of the block is called: which types it takes, what comes out, what it refuses.
local lt, core = ...
local is_tensor = lt.is_tensor

local ops = {}

-- ---- The block ----------------------------------------------------------------------------------

local accepts = {
  any = "tensor or number", float = "float tensor or number",
  index = "integer tensor, counted from 1", mask = "bool tensor",
}
local types = {
  int = "integer", number = "number", bool = "boolean", dim = "dimension",
  dims = "dimension, or several in a table", sizes = "sizes: numbers, or one table",
  ints = "integer, or several in a table", numbers = "number, or several in a table",
  pairs = "integers, two for each dimension", index = "position", dtype = "dtype", text = "string",
}

---@param value any
---@return string
function ops.value_text(value)
  if math.type(value) then return string.format("%.14g", value) end
  return tostring(value)
end

--- The first of "mean none sum".
local function default_of(option)
  if option.type == "choice" then return '"' .. option.choices:match "%S+" .. '"' end
  if option.default ~= nil and not option.required then return ops.value_text(option.default) end
end

local function option_item(option)
  local default = default_of(option)
  local words = option.choices and '"' .. option.choices:gsub(" ", '", "') .. '"'
  local kind = types[option.type]
  return {
    name = option.name, option = true,
    type = kind and words and kind .. ", or " .. words or kind or words,
    text = default and "default " .. default or option.required and "" or "optional",
  }
end

--- Options that a call gives by position, before those in the table: sizes and what is required.
local function count_positional(op)
  for i, option in ipairs(op.options) do
    if not (option.required or option.type == "sizes") then return i - 1 end
  end
  return #op.options
end

---@param op table an entry of lt.ops
---@return luatape.help.entry
function ops.entry(op)
  local arguments, named, items = {}, {}, {}
  for _, input in ipairs(op.inputs) do
    arguments[#arguments + 1] = input.name
    items[#items + 1] = {
      name = input.name, type = input.list and "table of tensors" or accepts[input.accepts],
      text = input.optional and "optional" or "",
    }
  end
  local positional = count_positional(op)
  for i, option in ipairs(op.options) do
    local default = default_of(option)
    if op.option_at > 0 and i == 1 then table.insert(arguments, op.option_at, option.name)
    elseif i <= positional then arguments[#arguments + 1] = option.name
    else named[#named + 1] = option.name .. (default and " = " .. default or "") end
    items[#items + 1] = option_item(option)
  end
  if #named > 0 then arguments[#arguments + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return {
    name = op.name, op = op, head = ("lt.%s(%s)"):format(op.name, table.concat(arguments, ", ")),
    doc = op.doc, items = items,
  }
end

---@return luatape.help.entry[] sorted by name
function ops.entries()
  local list = {}
  for _, op in pairs(lt.ops) do
    if not op.internal then list[#list + 1] = ops.entry(op) end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local tangents = {
  parts = "by the ops that it is made of", linear = "the op itself, of the tangents",
  multilinear = "the product rule", rule = "a rule of its own", derived = "derived from the gradient",
}

--- What the block says of derivatives and batches: lines of a label and a text.
local function derivative_lines(op, add)
  if op.view then add("result", "a view where it can be") end
  if #op.inputs == 0 then return end
  add("gradient", op.cuts and "ends here" or op.differentiable and "yes, of any order" or "none")
  if op.differentiable then add("forward mode", tangents[op.forward]) end
  add("vmap", op.batched and "one run for all samples"
    or "no rule: sample by sample, with fallback = true")
end

-- ---- The sample as a call -----------------------------------------------------------------------

--- The generators of samples (spec/samples.lua), in the words of users.
local calls = {
  normal = function(sizes) return "lt.randn(" .. sizes .. ")" end,
  positive = function(sizes) return "lt.rand(" .. sizes .. ") * 1.5 + 0.5", true end,
  uniform = function(sizes) return "lt.rand(" .. sizes .. ") * 1.8 - 0.9", true end,
  mask = function(sizes) return "lt.rand(" .. sizes .. "):gt(0.5)" end,
  integers = function(arguments)
    local low, high, sizes = arguments:match "^([^,]+), ([^,]+),? ?(.*)$"
    return ("lt.randint(%s, %s%s)"):format(low, high, sizes ~= "" and ", {" .. sizes .. "}" or "")
  end,
  transposed = function(sizes)
    local front, rows, columns = sizes:match "^(.-)(%d+), (%d+)$"
    return ("lt.randn(%s%s, %s):transpose(-2, -1)"):format(front, columns, rows)
  end,
}

---@param sample string
---@return string arguments as one writes them
local function user_arguments(sample)
  local text = sample:gsub("'", '"'):gsub("()(%w+)(%b())()", function(first, name, arguments, last)
    if not calls[name] then return nil end
    local call, is_sum = calls[name](arguments:sub(2, -2))
    local alone = sample:sub(1, first - 1):find "^$" or sample:sub(1, first - 1):find "[,{] ?$"
    alone = alone and (sample:sub(last):find "^$" or sample:sub(last):find "^[,}]")
    return is_sum and not alone and "(" .. call .. ")" or call
  end)
  return text
end

local function draw(arguments)
  local chunk = load("return pack(" .. arguments .. ")", "=help", "t", { lt = lt, pack = table.pack })
  return assert(chunk)()
end

local function run(op, a) return table.pack(lt[op.name](table.unpack(a, 1, a.n))) end

local function size_text(sizes) return #sizes > 0 and table.concat(sizes, "x") or "0-d" end

--- "float32 2x3, int64 2x3"; sizes that hang on the values are n.
local function results_text(op, arguments)
  local results, sizes = nil, {}
  for _ = 1, op.batched and 1 or 8 do
    results = run(op, draw(arguments))
    for i = 1, results.n do
      local shape = results[i].shape
      sizes[i] = sizes[i] or shape
      for d, size in ipairs(shape) do
        if sizes[i][d] ~= size then sizes[i][d] = "n" end
      end
    end
  end
  local parts = {}
  for i = 1, results.n do parts[i] = results[i].dtype .. " " .. size_text(sizes[i]) end
  return table.concat(parts, ", ")
end

--- The pieces of an argument list at its outermost commas.
local function pieces_of(arguments)
  local pieces, depth, piece = {}, 0, ""
  for c in arguments:gmatch "." do
    if c:find "[%(%[{]" then depth = depth + 1 end
    if c:find "[%)%]}]" then depth = depth - 1 end
    piece = piece .. c
    if c == "," and depth == 0 then
      pieces[#pieces + 1], piece = piece, ""
    end
  end
  pieces[#pieces + 1] = piece
  return pieces
end

local WIDTH <const> = 96

--- The call, broken into lines where it must be, and a comment that says what it returns.
local function example(op, arguments)
  local line, lines = "lt." .. op.name .. "(", {}
  for i, piece in ipairs(pieces_of(arguments)) do
    if i > 1 and #line + #piece > WIDTH then
      lines[#lines + 1] = line
      line, piece = "  ", piece:sub(2)
    end
    line = line .. piece
  end
  lines[#lines + 1] = line .. ")"
  local text, comment = table.concat(lines, "\n"), "--> " .. results_text(op, arguments)
  return text .. (#lines[#lines] + #comment < WIDTH and " " or "\n") .. comment
end

-- ---- Types --------------------------------------------------------------------------------------

local dtypes <const> = { "float32", "float64", "int64", "int32", "uint8", "bool" }

local function is_float(t) return t.dtype == "float32" or t.dtype == "float64" end

--- The arguments with f applied to all tensors, also in lists.
local function each_tensor(a, f)
  local copy = { n = a.n }
  for i = 1, a.n or #a do
    local v = a[i]
    if is_tensor(v) then v = f(v)
    elseif type(v) == "table" and is_tensor(v[1]) then v = each_tensor(v, f) end
    copy[i] = v
  end
  return copy
end

--- The dtypes of the results with the float inputs in another type; nil if the op refuses it.
local function result_dtypes(op, arguments, dtype)
  local function convert(t)
    if not is_float(t) then return t end
    if dtype:find "^float" then return t:to(dtype) end
    return lt.ones(t.shape, { dtype = dtype })
  end
  local ok, results = pcall(run, op, each_tensor(draw(arguments), convert))
  if not ok then return nil end
  for i = 1, results.n do results[i] = results[i].dtype end
  return results
end

--- "float32, float64: the same; int64: float32"; nothing for ops of which no input is a float.
local function dtypes_text(op, arguments)
  local any_float = false
  each_tensor(draw(arguments), function(t)
    any_float = any_float or is_float(t)
    return t
  end)
  if not any_float then return nil end
  local order, groups = {}, {}
  local single = result_dtypes(op, arguments, "float32")
  local double = result_dtypes(op, arguments, "float64")
  for _, dtype in ipairs(dtypes) do
    local results, others, text = result_dtypes(op, arguments, dtype), false, "refused"
    if results then
      for i = 1, results.n do
        local kept = single and double and single[i] == "float32" and double[i] == "float64"
        if kept and results[i] == dtype then results[i] = "the same" else others = true end
      end
      text = others and table.concat(results, ", ") or "the same"
    end
    if not groups[text] then
      groups[text] = {}
      order[#order + 1] = text
    end
    table.insert(groups[text], dtype)
  end
  local parts = {}
  for i, text in ipairs(order) do
    parts[i] = ("%s: %s"):format(table.concat(groups[text], ", "), text)
  end
  return table.concat(parts, "; ")
end

-- ---- Errors -------------------------------------------------------------------------------------

--- Each tensor in turn replaced by f of it: a list of argument lists.
local function replaced(a, f)
  local lists, count = {}, 0
  each_tensor(a, function(t) count = count + 1 return t end)
  for k = 1, count do
    local at = 0
    lists[k] = each_tensor(a, function(t)
      at = at + 1
      return at == k and f(t) or t
    end)
  end
  return lists
end

local wrong_values = {
  dim = 9, dims = { 9 }, index = 99, ints = { -1 }, int = -1, sizes = { 7, 7, 7 }, choice = "nosuch",
  pairs = { 1, 2, 3 }, text = "nosuch", numbers = { "nosuch" }, number = "nosuch",
  dtype = "nosuch", bool = "nosuch",
}
local by_weight = { "dim", "dims", "index", "ints", "int", "sizes", "pairs", "choice", "text",
  "numbers", "number", "dtype", "bool" }

local function with_option(a, name, value)
  local copy = table.move(a, 1, a.n, 1, { n = a.n })
  local last, options = copy[a.n], {}
  if type(last) == "table" and type(next(last)) == "string" then
    for key, v in pairs(last) do options[key] = v end
  else
    copy.n = copy.n + 1
  end
  options[name] = value
  copy[copy.n] = options
  return copy
end

--- One element more in the first or last dimension.
local function longer(dim)
  return function(t)
    if t.ndim == 0 or t.shape[dim < 0 and t.ndim or dim] == 0 then return nil end
    return lt.cat({ t, t:narrow(dim, 1, 1) }, { dim = dim })
  end
end

--- Ways to call an op wrongly: from arguments to lists of arguments.
local mistakes = {
  function(_, a) return replaced(a, longer(-1)) end,
  function(op, a)
    local lists = {}
    for _, kind in ipairs(by_weight) do
      for _, option in ipairs(op.options) do
        if option.type == kind then
          lists[#lists + 1] = with_option(a, option.name, wrong_values[kind])
        end
      end
    end
    return lists
  end,
  function(_, a)
    return replaced(a, function(t)
      return t.dtype == "int64" and lt.full(t.shape, 99, { dtype = "int64" }) or nil
    end)
  end,
  function(_, a) return replaced(a, longer(1)) end,
  function(_, a) return replaced(a, function(t) return t.ndim > 0 and t:select(1, 1) or nil end) end,
  function(_, a) return replaced(a, function(t) return t:reshape(-1)[1] end) end,
  function(_, a)
    return replaced(a, function(t) return t:to(is_float(t) and "int64" or "float32") end)
  end,
  function(_, a)
    local copy = table.move(a, 1, a.n, 1, { n = a.n })
    copy[1] = "text"
    return { copy }
  end,
  function(_, a) return { with_option(a, "nosuch", 1) } end,
}

local MOST_ERRORS <const> = 3

--- What the engine says to wrong calls, without the position; one message of each form.
local function errors_of(op, arguments)
  local list, known = {}, {}
  for _, mistake in ipairs(mistakes) do
    for _, a in ipairs(mistake(op, draw(arguments))) do
      local ok, message = pcall(run, op, a)
      local at = not ok and type(message) == "string" and message:find(op.name .. ":", 1, true)
      local form = at and message:sub(at):gsub("%d+[x%d]*", "0")
      if form and not known[form] then
        known[form], list[#list + 1] = true, message:sub(at)
        break
      end
    end
    if #list == MOST_ERRORS then break end
  end
  return list
end

-- ---- All together -------------------------------------------------------------------------------

--- Calls f() with nothing recorded, and leaves random numbers and default dtype as they were.
local function aside(f)
  local place, dtype = core.random_place(), lt.get_default_dtype()
  lt.set_default_dtype "float32"
  local ok, result = pcall(lt.no_grad, f)
  lt.set_default_dtype(dtype)
  core.random_place(place)
  if not ok then error(result, 0) end
  return result
end

--- What the engine says of an op.
---@class luatape.help.facts
---@field lines { label: string, text: string }[]
---@field errors string[]
---@field example string? a call, and a comment with type and shape of each result

---@param op table an entry of lt.ops
---@return luatape.help.facts
function ops.facts(op)
  local facts = { lines = {}, errors = {} }
  local function add(label, text) facts.lines[#facts.lines + 1] = { label = label, text = text } end
  local sample = op.samples[1]
  if not sample then return derivative_lines(op, add), facts end
  local arguments = user_arguments(sample)
  return aside(function()
    local text = dtypes_text(op, arguments)
    if text then add("dtypes", text) end
    derivative_lines(op, add)
    facts.errors = errors_of(op, arguments)
    facts.example = example(op, arguments)
    return facts
  end)
end

return ops

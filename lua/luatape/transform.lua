--- Transforms of functions, after JAX: grad, vjp, jvp, jacobian, hessian, hvp, vmap, checkpoint.
--- Functions take and return tensors or nested tables of them; what a transform watches is an
--- alias of the argument, so that the same tensor may be used elsewhere too.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local nested = core.import "luatape.nested"
local Tape = core.import "luatape.tape"

local fail, check_options, is_tensor = arguments.fail, arguments.options, lt.is_tensor
local map, flatten, rebuild = nested.map, nested.flatten, nested.rebuild

local function check_function(f, op)
  if type(f) ~= "function" and not (getmetatable(f) and getmetatable(f).__call) then
    fail("%s: takes a function, got %s", op, type(f))
  end
  return f
end

--- Which arguments: a list of numbers, and whether one number was given.
local function check_argnums(argnums, op)
  if argnums == nil then return { 1 }, true end
  local list = type(argnums) == "table" and argnums or { argnums }
  for _, n in ipairs(list) do
    if math.type(n) ~= "integer" or n < 1 then
      fail("%s: argnums must be places of arguments, counted from 1; got %s", op, tostring(n))
    end
  end
  if #list == 0 then fail("%s: argnums is empty", op) end
  return list, type(argnums) ~= "table"
end

--- A tensor to be watched, which may be used elsewhere too.
local function alias(op)
  return function(t)
    if t.is_sparse or not t.dtype:find "^float" then
      fail("%s: an argument is %s; only float32 and float64 have gradients", op,
        t.is_sparse and "a sparse gradient" or t.dtype)
    end
    return (core.alias(t))
  end
end

--- The arguments with aliases in the places `which`, and those by place.
local function aliases(args, which, op)
  local copy, sources = table.move(args, 1, args.n, 1, { n = args.n }), {}
  for i, n in ipairs(which) do
    if n > args.n or args[n] == nil then fail("%s: there is no argument %d", op, n) end
    copy[n] = map(args[n], alias(op), op)
    sources[i] = copy[n]
  end
  return copy, sources
end

local function check_scalar(y, op)
  if not is_tensor(y) then fail("%s: the function must return a tensor, got %s", op, type(y)) end
  if y.ndim > 0 then
    fail("%s: the function must return a scalar first, got %s", op, arguments.shape_text(y))
  end
  return y
end

local zeros = { unconnected_gradients = "zero" }

--- value, gradients by argnums, auxiliary results
local function run_grad(op, f, which, single, ...)
  local args, sources = aliases(table.pack(...), which, op)
  local tape <close> = lt.tape { watch_variables = false }
  for _, t in ipairs(flatten(sources, op)) do tape:watch(t) end
  local results = table.pack(f(table.unpack(args, 1, args.n)))
  local g = tape:gradient(check_scalar(results[1], op), sources, zeros)
  return results, single and g[1] or g
end

--- The gradient of f as a function: d f(...) / d its argument number argnums (default 1; a table of
--- them: a table of gradients), in the shape of that argument, be it a tensor or nested tables. f's
--- first result must be a scalar; further ones are passed through behind the gradient. Arguments on
--- which f does not depend have gradients of zeros.
---@param f fun(...): luatape.tensor, ...
---@param argnums integer|integer[]?
---@return fun(...): any gradient, ...
function lt.grad(f, argnums)
  check_function(f, "grad")
  local which, single = check_argnums(argnums, "grad")
  return function(...)
    local results, g = run_grad("grad", f, which, single, ...)
    return g, table.unpack(results, 2, results.n)
  end
end

--- As lt.grad; the function returns f's value first, then the gradient, then further results.
---@param f fun(...): luatape.tensor, ...
---@param argnums integer|integer[]?
---@return fun(...): luatape.tensor value, any gradient, ...
function lt.value_and_grad(f, argnums)
  check_function(f, "value_and_grad")
  local which, single = check_argnums(argnums, "value_and_grad")
  return function(...)
    local results, g = run_grad("value_and_grad", f, which, single, ...)
    return results[1], g, table.unpack(results, 2, results.n)
  end
end

--- y = f(...) and its pullback: pullback(dy) returns dy^T (dy / dx) for each argument x, in its
--- shape; it may be called again and again. y may be nested tables, dy then has their shape.
---@param f fun(...): luatape.tensor|table, ...
---@return luatape.tensor|table y
---@return fun(dy: luatape.tensor|table): ... pullback
---@return any ... further results of f
function lt.vjp(f, ...)
  check_function(f, "vjp")
  local args = table.pack(...)
  local which = {}
  for i = 1, args.n do which[i] = i end
  local copy, sources = aliases(args, which, "vjp")
  local tape = lt.tape { persistent = true, watch_variables = false }
  for _, t in ipairs(flatten(sources, "vjp")) do tape:watch(t) end
  local results = table.pack(f(table.unpack(copy, 1, copy.n)))
  tape:stop()
  local function pullback(dy)
    local g = tape:gradient(results[1], sources,
      { output_gradients = dy, unconnected_gradients = "zero" })
    return table.unpack(g, 1, #sources)
  end
  return results[1], pullback, table.unpack(results, 2, results.n)
end

--- Tangents of `primals` for a forward tape; a missing one is `false` or nil.
local function set_tangents(tape, primals, tangents, op)
  if is_tensor(primals) then
    if not tangents then return end
    if not is_tensor(tangents) then fail("%s: a tangent is %s, not a tensor", op, type(tangents)) end
    core.set_tangent(tape, primals, tangents)
    return
  end
  if tangents and type(tangents) ~= "table" then
    fail("%s: the tangents do not have the shape of the primals", op)
  end
  for key, primal in pairs(primals) do
    set_tangents(tape, primal, tangents and tangents[key], op)
  end
end

--- Forward mode: y = f(primals...) and dy, its derivative along the tangents. Primals and tangents
--- are tables of arguments (one argument may stand for itself); nil or false stands for a tangent of
--- zeros. The work and memory of dy are those of a few evaluations of f, however long f runs.
---@param f fun(...): luatape.tensor|table, ...
---@param primals luatape.tensor|table
---@param tangents luatape.tensor|table
---@return luatape.tensor|table y
---@return luatape.tensor|table dy
---@return any ... further results of f
function lt.jvp(f, primals, tangents)
  check_function(f, "jvp")
  if is_tensor(primals) then primals, tangents = { primals }, { tangents } end
  if type(primals) ~= "table" or type(tangents) ~= "table" then
    fail("jvp: takes a function, a table of arguments and a table of tangents")
  end
  local copy = map(primals, alias "jvp", "jvp")
  local tape <close> = core.tape_new(core.tape_meta, true, false, true)
  set_tangents(tape, copy, tangents, "jvp")
  local results = table.pack(f(table.unpack(copy, 1, #primals)))
  local dy = map(results[1], function(y)
    return core.tangent(tape, y) or lt.zeros_like(y)
  end, "jvp")
  tape:stop()
  return results[1], dy, table.unpack(results, 2, results.n)
end

-- ---- Jacobians ----------------------------------------------------------------------------------

--- Batched walks hold so many elements at most, or one row.
local MOST_ELEMENTS <const> = 1 << 24

local function sizes(...)
  local list = {}
  for _, part in ipairs { ... } do table.move(part, 1, #part, #list + 1, list) end
  return list
end

--- The gradients of <seed, target> for every seed, the first dim of `seeds`, by batches.
local function pull_back(op, tape, target, flat, seeds, chunk)
  local rows, parts = seeds.shape[1], {}
  if rows == 0 then -- of an empty target
    for i, x in ipairs(flat) do
      parts[i] = arguments.within(op, lt.zeros, sizes({ 0 }, x.shape), { dtype = x.dtype })
    end
    return parts
  end
  local pull = lt.vmap(function(seed)
    return table.unpack((core.gradient(tape, { target }, { seed }, flat)))
  end)
  if rows > chunk and not tape.persistent then
    tape:stop()
    core.hold(tape, true)
  end
  for first = 1, rows, chunk do
    local last = math.min(first + chunk - 1, rows)
    if last == rows then core.hold(tape, false) end
    local found = table.pack(pull(rows > chunk and seeds[{ { first, last } }] or seeds))
    for i = 1, #flat do
      parts[i] = parts[i] or {}
      parts[i][#parts[i] + 1] = found[i] or nil
    end
  end
  for i = 1, #flat do
    parts[i] = #parts[i] > 1 and lt.cat(parts[i]) or parts[i][1] or false
  end
  return parts
end

local jacobian_options = { chunk_size = true, unconnected_gradients = true }

local function check_chunk(options, op, elements)
  local chunk = options.chunk_size
  if chunk == nil then return math.max(1, MOST_ELEMENTS // math.max(elements, 1)) end
  if math.type(chunk) ~= "integer" or chunk < 1 then
    fail("%s: chunk_size must be a positive integer, got %s", op, tostring(chunk))
  end
  return chunk
end

--- Jacobians of a target for nested sources, from batched walks whose seeds `rows` lays out.
local function jacobians(op, tape, target, sources, options, seeds, reshape)
  if not is_tensor(target) then fail("%s: the target must be one tensor, got %s", op, type(target)) end
  options = check_options(op, options, jacobian_options)
  local flat = flatten(sources, op)
  local most = target:numel()
  for _, source in ipairs(flat) do most = math.max(most, source:numel()) end
  local found = pull_back(op, tape, target, flat, seeds, check_chunk(options, op, most))
  for i, rows in ipairs(found) do
    if rows then
      found[i] = arguments.within(op, reshape, rows, flat[i])
    elseif options.unconnected_gradients == "zero" then
      found[i] = arguments.within(op, function()
        local size = { seeds.shape[1], table.unpack(flat[i].shape) }
        return reshape(lt.zeros(size, { dtype = target.dtype }), flat[i])
      end)
    end
  end
  if is_tensor(sources) then
    if found[1] then return found[1] end
    return nil, (tape:explain(target, sources))
  end
  return rebuild(sources, found)
end

--- The Jacobian d target / d source: J[i.., j..] = d target[i..] / d source[j..], in the shape
--- target.shape .. source.shape; for nested sources a table of them. All rows are computed in one
--- batched walk (as lt.vmap does), or in batches of chunk_size rows. Uses the tape up unless it is
--- persistent.
---@param target luatape.tensor
---@param sources luatape.tensor|table
---@param options { chunk_size: integer?, unconnected_gradients: "none"|"zero"? }?
---@return luatape.tensor|table|nil jacobian
---@return luatape.why? why for a single source without a gradient
function Tape:jacobian(target, sources, options)
  local n = is_tensor(target) and target:numel() or 0
  local seeds = is_tensor(target) and arguments.within("jacobian", function()
    return lt.eye(n, { dtype = target.dtype }):reshape(sizes({ n }, target.shape))
  end)
  return jacobians("jacobian", self, target, sources, options, seeds, function(rows, x)
    return rows:reshape(sizes(target.shape, x.shape))
  end)
end

--- The Jacobian of each row, J[b, i.., j..] = d target[b, i..] / d source[b, j..], for a target
--- whose row b depends on row b of the source alone: shape B x target's x source's.
---@param target luatape.tensor
---@param source luatape.tensor
---@param options { chunk_size: integer?, unconnected_gradients: "none"|"zero"? }?
---@return luatape.tensor|nil jacobian
---@return luatape.why? why
function Tape:batch_jacobian(target, source, options)
  if not is_tensor(target) or not is_tensor(source) or target.ndim == 0 or source.ndim == 0
    or target.shape[1] ~= source.shape[1] then
    fail("batch_jacobian: target and source must be tensors with the same first size, got %s and %s",
      is_tensor(target) and arguments.shape_text(target) or type(target),
      is_tensor(source) and arguments.shape_text(source) or type(source))
  end
  local batch = target.shape[1]
  local row = table.move(target.shape, 2, target.ndim, 1, {})
  local x_row = table.move(source.shape, 2, source.ndim, 1, {})
  local n = 1
  for _, size in ipairs(row) do n = n * size end
  local seeds = arguments.within("batch_jacobian", function()
    return lt.eye(n, { dtype = target.dtype }):reshape(sizes({ n, 1 }, row))
      :expand(sizes({ n, batch }, row))
  end)
  return jacobians("batch_jacobian", self, target, source, options, seeds, function(rows)
    return rows:transpose(1, 2):reshape(sizes({ batch }, row, x_row))
  end)
end

--- The columns of the Jacobian of one argument's tensor, by forward mode.
local function push_forward(run, flat, i, chunk)
  local x = flat[i]
  local n = x:numel()
  if n == 0 then fail "jacobian: an argument is empty; mode \"reverse\" takes it" end
  local basis = lt.eye(n, { dtype = x.dtype }):reshape(sizes({ n }, x.shape))
  local columns = lt.vmap(function(t) return run(i, t) end, { chunk_size = chunk })(basis)
  return columns -- n x y.shape
end

local modes = { auto = true, forward = true, reverse = true }

--- The Jacobian of f as a function of its arguments: d f(...) / d argument argnums, of shape
--- y.shape .. x.shape, for nested arguments a table of them. mode "reverse" walks back once for each
--- element of y, "forward" runs once for each element of x (both batched); "auto" takes what is less.
---@param f fun(...): luatape.tensor, ...
---@param options { argnums: integer|integer[]?, mode: "auto"|"forward"|"reverse"?, chunk_size: integer? }?
---@return fun(...): any jacobian, ...
function lt.jacobian(f, options)
  check_function(f, "jacobian")
  options = check_options("jacobian", options, { argnums = true, mode = true, chunk_size = true })
  check_chunk(options, "jacobian", 1)
  local which, single = check_argnums(options.argnums, "jacobian")
  local mode = options.mode or "auto"
  if not modes[mode] then
    fail("jacobian: mode must be one of: auto forward reverse; got %s", tostring(mode))
  end
  return function(...)
    local args, sources = aliases(table.pack(...), which, "jacobian")
    local flat, wanted = flatten(sources, "jacobian"), 0
    for _, t in ipairs(flat) do wanted = wanted + t:numel() end
    if #flat == 0 then fail "jacobian: the arguments hold no tensor" end
    local results, found
    if mode ~= "forward" then
      local tape <close> = lt.tape { watch_variables = false }
      for _, t in ipairs(flat) do tape:watch(t) end
      results = table.pack(f(table.unpack(args, 1, args.n)))
      local y = results[1]
      if mode == "reverse" or not is_tensor(y) or y:numel() <= wanted
        or wanted == 0 then
        found = tape:jacobian(y, sources,
          { unconnected_gradients = "zero", chunk_size = options.chunk_size })
      end
    end
    if not found then
      local function run(i, tangent)
        local tape <close> = core.tape_new(core.tape_meta, true, false, true)
        core.set_tangent(tape, flat[i], tangent)
        results = table.pack(f(table.unpack(args, 1, args.n)))
        local y = results[1]
        if not is_tensor(y) then fail("jacobian: the function must return a tensor") end
        return core.tangent(tape, y) or lt.zeros_like(y)
      end
      local list = {}
      for i, x in ipairs(flat) do
        local chunk = check_chunk(options, "jacobian", results and results[1]:numel() or x:numel())
        local columns = push_forward(run, flat, i, chunk)
        local y = table.move(columns.shape, 2, columns.ndim, 1, {})
        list[i] = columns:reshape(x:numel(), -1):transpose(1, 2):reshape(sizes(y, x.shape))
      end
      found = rebuild(sources, list)
    end
    return single and found[1] or found, table.unpack(results, 2, results.n)
  end
end

--- The Hessian of f, whose first result is a scalar: H[i.., j..] = d2 f / dx[i..] dx[j..], of shape
--- x.shape .. x.shape; for a nested argument a table of tables, h[a][b] = d2 f / da db.
---@param f fun(...): luatape.tensor, ...
---@param options { argnums: integer?, chunk_size: integer? }?
---@return fun(...): any hessian
function lt.hessian(f, options)
  check_function(f, "hessian")
  options = check_options("hessian", options, { argnums = true, chunk_size = true })
  check_chunk(options, "hessian", 1)
  local which, single = check_argnums(options.argnums, "hessian")
  if not single then fail("hessian: argnums must be one number") end
  return function(...)
    local args, sources = aliases(table.pack(...), which, "hessian")
    local tape <close> = lt.tape { persistent = true, watch_variables = false }
    for _, t in ipairs(flatten(sources, "hessian")) do tape:watch(t) end
    local _, g = run_grad("hessian", f, which, true, table.unpack(args, 1, args.n))
    tape:stop()
    return (map(g, function(part)
      return (tape:jacobian(part, sources[1],
        { unconnected_gradients = "zero", chunk_size = options.chunk_size }))
    end, "hessian"))
  end
end

--- The product of the Hessian of f at x with v, both of the same shape (tensors or nested tables),
--- without the Hessian: the gradient of <grad f(x), v>.
---@param f fun(x): luatape.tensor
---@param x luatape.tensor|table
---@param v luatape.tensor|table
---@return luatape.tensor|table product
---@return luatape.tensor|table gradient of f at x
function lt.hvp(f, x, v)
  check_function(f, "hvp")
  local copy = map(x, alias "hvp", "hvp")
  local sources, directions = flatten(copy, "hvp"), flatten(v, "hvp")
  if #sources == 0 then fail "hvp: x holds no tensor" end
  for i, t in ipairs(sources) do
    local d = directions[i]
    if not d or d.dtype ~= t.dtype or arguments.shape_text(d) ~= arguments.shape_text(t) then
      fail("hvp: v must be as x is, %s %s; it is %s", t.dtype, arguments.shape_text(t),
        d and d.dtype .. " " .. arguments.shape_text(d) or "missing")
    end
  end
  local tape <close> = lt.tape { watch_variables = false }
  for _, t in ipairs(sources) do tape:watch(t) end
  local _, g = run_grad("hvp", f, { 1 }, true, copy)
  return tape:gradient(g, copy, { output_gradients = v, unconnected_gradients = "zero" }), g
end

-- ---- vmap ---------------------------------------------------------------------------------------

local vmap_options = { in_dims = true, out_dims = true, fallback = true, chunk_size = true }

--- The dims of in_dims for n arguments; `false` for those that are the same for every sample.
local function dims_of(given, n, name)
  local list = {}
  for i = 1, n do
    local dim = 1
    if type(given) == "table" then dim = given[i]
    elseif given ~= nil then dim = given end
    if dim == nil or dim == false then
      dim = false
    elseif math.type(dim) ~= "integer" or dim == 0 then
      fail("vmap: %s must be dimensions, counted from 1, or false; got %s", name, tostring(dim))
    end
    list[i] = dim
  end
  return list
end

--- The number of samples; all arguments must agree.
local function batch_size(args, dims)
  local size, first
  for i = 1, args.n do
    if dims[i] and (is_tensor(args[i]) or type(args[i]) == "table") then
      for _, t in ipairs(flatten(args[i], "vmap")) do
        if t.is_sparse then fail("vmap: argument %d is a sparse gradient; use x:to_dense()", i) end
        local dim = dims[i] < 0 and dims[i] + t.ndim + 1 or dims[i]
        local n = t.shape[dim]
        if not n or dim < 1 then
          fail("vmap: argument %d (%s) has no dimension %d", i, arguments.shape_text(t), dims[i])
        end
        if size and n ~= size then
          fail("vmap: arguments %d and %d have batches of %d and %d", first, i, size, n)
        end
        size, first = n, first or i
      end
    end
  end
  return size or fail "vmap: no argument has a batch (in_dims)"
end

local function map_argument(value, dim, f)
  if not dim or not (is_tensor(value) or type(value) == "table") then return value end
  return map(value, f, "vmap")
end

--- The results of one run, batches in front or where out_dims says.
local function run_batch(f, args, dims, out_dims, size, fallback)
  return table.pack(core.vmap_run(size, fallback, function()
    local inside = { n = args.n }
    for i = 1, args.n do
      inside[i] = map_argument(args[i], dims[i], function(t) return core.split(t, dims[i]) end)
    end
    local results = table.pack(f(table.unpack(inside, 1, inside.n)))
    local out = dims_of(out_dims, results.n, "out_dims")
    for k = 1, results.n do
      results[k] = map_argument(results[k], out[k] or 1, function(t) return core.join(t, out[k] or 1) end)
    end
    return table.unpack(results, 1, results.n)
  end))
end

--- Vectorises f, which is written for one sample: the result takes batches and runs every op once
--- for all samples, also the ops of gradients taken inside (per-sample gradients:
--- `lt.vmap(lt.grad(loss), {in_dims = {false, 1, 1}})(params, x, y)`). Inside, a tensor shows the
--- shape of one sample; its values cannot be read (item, print, if), since they differ by sample.
--- Ops without a batching rule are an error, or run sample by sample with fallback = true. Random
--- ops that take no tensor draw once for all samples. No coroutine may yield out of it. (JAX's and
--- PyTorch's vmap.)
---@param f fun(...): ...
---@param options { in_dims: integer|table?, out_dims: integer|table?, fallback: boolean?, chunk_size: integer? }?
---  in_dims: the batch's dimension, 1 by default, of all arguments or of each (false: the same for
---  every sample); out_dims: likewise of the results; chunk_size: samples in one run (default all)
---@return fun(...): ...
function lt.vmap(f, options)
  check_function(f, "vmap")
  options = check_options("vmap", options, vmap_options)
  local chunk = options.chunk_size
  if chunk ~= nil and (math.type(chunk) ~= "integer" or chunk < 1) then
    fail("vmap: chunk_size must be a positive integer, got %s", tostring(chunk))
  end
  return function(...)
    local args = table.pack(...)
    local dims = dims_of(options.in_dims, args.n, "in_dims")
    local size = batch_size(args, dims)
    local fallback = options.fallback == true
    if not chunk or chunk >= size then
      local results = run_batch(f, args, dims, options.out_dims, size, fallback)
      return table.unpack(results, 1, results.n)
    end
    local parts, out = {}, nil
    for first = 1, size, chunk do
      local length = math.min(chunk, size - first + 1)
      local some = { n = args.n }
      for i = 1, args.n do
        some[i] = map_argument(args[i], dims[i], function(t) return t:narrow(dims[i], first, length) end)
      end
      local results = run_batch(f, some, dims, options.out_dims, length, fallback)
      out = out or dims_of(options.out_dims, results.n, "out_dims")
      parts[#parts + 1] = results
    end
    local results = parts[1]
    for k = 1, results.n do
      if is_tensor(results[k]) or type(results[k]) == "table" then
        local lists = {}
        for p, part in ipairs(parts) do lists[p] = flatten(part[k], "vmap") end
        local joined = {}
        for i = 1, #lists[1] do
          local pieces = {}
          for p = 1, #parts do pieces[p] = lists[p][i] end
          joined[i] = lt.cat(pieces, { dim = out[k] or 1 })
        end
        results[k] = rebuild(results[k], joined)
      end
    end
    return table.unpack(results, 1, results.n)
  end
end

-- ---- checkpoint ---------------------------------------------------------------------------------

--- f(...), of which the tape keeps only the inputs: the backward walk runs f again to get at the
--- values in between. Memory then grows with the number of checkpoints instead of ops, for about
--- one more evaluation of f. f may use variables and tensors from outside; random ops draw the same
--- numbers again. (Chen et al. 2016, arXiv 1604.06174.)
---@param f fun(...): ...
---@return ... the results of f; at most 6 of them tensors
function lt.checkpoint(f, ...)
  check_function(f, "checkpoint")
  local args, place = table.pack(...), core.random_place()
  local noted = table.pack(core.note(f, ...))
  local inputs = noted[1]
  if #inputs == 0 then return table.unpack(noted, 2, noted.n) end
  local tensors, places = {}, {}
  for k = 2, noted.n do
    if is_tensor(noted[k]) then
      tensors[#tensors + 1] = noted[k]
      places[#tensors] = k
    end
  end
  local function back(...)
    local dy = table.pack(...)
    local now = core.random_place(place)
    local tape <close> = lt.tape { watch_variables = false }
    for _, t in ipairs(inputs) do tape:watch(t) end
    local again = table.pack(f(table.unpack(args, 1, args.n)))
    core.random_place(now)
    local targets, seeds = {}, {}
    for i, k in ipairs(places) do
      if dy[i] then
        targets[#targets + 1] = again[k - 1]
        seeds[#seeds + 1] = dy[i]
      end
    end
    local g = tape:gradient(targets, inputs, { output_gradients = seeds })
    for i = 1, #inputs do g[i] = g[i] or nil end
    return table.unpack(g, 1, #inputs)
  end
  local results = table.pack(core.custom(tensors, inputs, back, true))
  for i, k in ipairs(places) do noted[k] = results[i] end
  return table.unpack(noted, 2, noted.n)
end

-- vmap, op by op: on a batch of samples every op and its gradient give what a loop over the samples
-- gives, whichever of its inputs differ by sample.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"
local derivatives = require "spec.derivatives"

local BATCH = 3
local TOLERANCE = { rtol = 1e-10, atol = 1e-10 }

-- Each sample draws numbers of its own.
local DRAWS = { dropout = true, rand_like = true, randn_like = true, bernoulli = true }
-- The shape of the result depends on the values, so that it differs by sample.
local RAGGED = {}
for name in ("masked_select nonzero unique"):gmatch "%S+" do RAGGED[name] = true end

---f(tensors...) for each sample, results stacked.
local function loop(f, tensors, mapped)
  local rows
  for n = 1, BATCH do
    local inside = {}
    for i, t in ipairs(tensors) do inside[i] = mapped[i] and t[n] or t end
    local results = table.pack(f(table.unpack(inside)))
    rows = rows or {}
    for k = 1, results.n do
      rows[k] = rows[k] or {}
      rows[k][n] = results[k]
    end
  end
  for k, list in ipairs(rows) do rows[k] = lt.stack(list) end
  return rows
end

local function check(what, f, tensors, mapped, options)
  local in_dims = {}
  for i in ipairs(tensors) do in_dims[i] = mapped[i] and 1 or false end
  local fine, expected = pcall(loop, f, tensors, mapped)
  if not fine then -- results of different shapes
    assert(not pcall(lt.vmap(f, { in_dims = in_dims, fallback = options }), table.unpack(tensors)))
    return
  end
  local results = table.pack(lt.vmap(f, { in_dims = in_dims, fallback = options })(
    table.unpack(tensors)))
  assert.equal(#expected, results.n)
  for k, t in ipairs(expected) do
    local difference = values.difference(("%s %d"):format(what, k), results[k], values.read(t), nil,
      TOLERANCE)
    assert(not difference, difference)
  end
end

---The op, and its gradients, as functions of its tensors.
local function as_functions(op, arguments)
  local function value(...)
    return table.unpack(derivatives.call(op, derivatives.replaced(arguments, { ... })))
  end
  local function gradients(...)
    local _, found = derivatives.derive(op, derivatives.replaced(arguments, { ... }), "zero")
    return table.unpack(found)
  end
  return value, gradients
end

---Calls f(mapped, text) for: all tensors differ by sample; each one alone.
local function each_choice(n, f)
  local all = {}
  for i = 1, n do all[i] = true end
  f(all, "all inputs")
  if n == 1 then return end
  for i = 1, n do f({ [i] = true }, "input " .. i) end
end

for _, op in ipairs(samples.ops()) do
  local text = ("vmap of %s"):format(op.name)
  if #op.inputs > 0 and not DRAWS[op.name] and not RAGGED[op.name] then
    describe(text, function()
      for k = 1, #op.samples do
        it(("is a loop: lt.%s(%s)"):format(op.name, op.samples[k]), function()
          local variants = {}
          for n = 1, BATCH do variants[n] = derivatives.tensors(samples.draw(op, k, n)) end
          local arguments = samples.draw(op, k, 1)
          local value, gradients = as_functions(op, arguments)
          each_choice(#variants[1], function(mapped, what)
            local tensors = {}
            for i, t in ipairs(variants[1]) do
              tensors[i] = mapped[i]
                and lt.stack { variants[1][i], variants[2][i], variants[3][i] } or t
            end
            if not op.batched then
              local ok, message = pcall(check, what, value, tensors, mapped)
              assert(not ok and message:find(op.name .. ": has no batching rule", 1, true), message)
              check(what, value, tensors, mapped, true)
              return
            end
            check(what, value, tensors, mapped)
            if #select(2, derivatives.derive(op, arguments)) > 0 then
              check("gradient for " .. what, gradients, tensors, mapped)
            end
          end)
        end)
      end
    end)
  end
end

-- What the specs of every op take derivatives with: its float tensors, noise in their shapes, and
-- the gradients of <noise, outputs>.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local derivatives = {}

---The op on its arguments. Random ops draw the same numbers each time.
function derivatives.call(op, arguments, seed)
  lt.manual_seed(seed or 1)
  return values.results(lt[op.name], table.unpack(arguments, 1, arguments.n))
end
local call = derivatives.call

function derivatives.is_float(t) return t.dtype == "float32" or t.dtype == "float64" end
local is_float = derivatives.is_float

---All tensors among the arguments, or those that `keep` keeps.
function derivatives.tensors(arguments, keep)
  local list = {}
  samples.map(arguments, function(t)
    if not keep or keep(t) then list[#list + 1] = t end
    return t
  end)
  return list
end

function derivatives.floats(arguments) return derivatives.tensors(arguments, is_float) end
local floats = derivatives.floats

---The arguments with other tensors in the places of theirs, or of those that `keep` keeps.
function derivatives.replaced(arguments, list, keep)
  local k = 0
  return samples.map(arguments, function(t)
    if keep and not keep(t) then return t end
    k = k + 1
    return list[k]
  end)
end

---The arguments with other float tensors in the places of theirs.
function derivatives.with(arguments, list) return derivatives.replaced(arguments, list, is_float) end

---Normal numbers in the shape and type of t.
function derivatives.noise(t, seed)
  local numbers = samples.generators(samples.random(seed)).normal(table.unpack(t.shape))
  return numbers:to(t.dtype)
end
local noise = derivatives.noise

---sum of <a_k, b_k>, as a 0-d tensor
function derivatives.inner(a, b)
  local sum = 0
  for k, t in ipairs(a) do sum = sum + (t * b[k]):sum() end
  return sum
end

---Outputs, and the gradients of sum_k <noise_k, output_k> for the float inputs (false: none).
function derivatives.derive(op, arguments, unconnected)
  local sources = floats(arguments)
  local tape <close> = lt.tape()
  for _, t in ipairs(sources) do tape:watch(t) end
  local outputs = call(op, arguments)
  local targets, cotangents = {}, {}
  for k, y in ipairs(outputs) do
    if is_float(y) then
      targets[#targets + 1], cotangents[#cotangents + 1] = y, noise(y, k)
    end
  end
  local gradients = {}
  if #targets > 0 and #sources > 0 then
    gradients = tape:gradient(targets, sources,
      { output_gradients = cotangents, unconnected_gradients = unconnected })
  end
  return outputs, gradients, targets, cotangents
end
local derive = derivatives.derive

---sum_k <noise_k, output_k>
function derivatives.first_value(op, arguments)
  local _, _, targets, cotangents = derive(op, arguments)
  return derivatives.inner(targets, cotangents)
end

---sum_i <noise_i, gradient_i>; the function whose gradient is a row of the Hessian.
function derivatives.second_value(op, arguments)
  local _, gradients = derive(op, arguments, "zero")
  local v = {}
  for i, g in ipairs(gradients) do v[i] = noise(g, 100 + i) end
  return derivatives.inner(gradients, v)
end

---The gradients of second_value, by nested tapes.
function derivatives.second_gradients(op, arguments)
  local sources = floats(arguments)
  local tape <close> = lt.tape()
  for _, t in ipairs(sources) do tape:watch(t) end
  local value = derivatives.second_value(op, arguments)
  return tape:gradient(value, sources, { unconnected_gradients = "zero" })
end

return derivatives

-- Two layers, a tape, an optimizer: first as it should be, then with a forward pass that no tape
-- saw, then with a gradient stopped on purpose. luatape says which is which, and where.
--
--     luatape examples/seed.lua
local lt = require "luatape"
local nn, optim = lt.nn, lt.optim

local iterations = os.getenv "LUATAPE_EXAMPLE_SMALL" and 20 or 100

lt.manual_seed(1)
local x, y = lt.randn(100, 10), lt.randn(100, 1)

local function new_model()
  return nn.Sequential { nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1) }
end

local function mean_square_error(prediction) return ((prediction - y) ^ 2):mean() end

print "1. Forward pass, loss and gradient under one tape"

local model = new_model()
local variables = model:parameters()
local optimizer = optim.Adam { lr = 0.01 }
for i = 1, iterations do
  local tape <close> = lt.tape()
  local loss = mean_square_error(model(x))
  optimizer:apply_gradients(tape:gradient(loss, variables), variables)
  if i == 1 or i % 10 == 0 then print(("iteration %3d  loss %.4f"):format(i, loss:item())) end
end

print "\n2. The forward pass before the tape: nothing to differentiate"

do
  local prediction = model(x) -- too early: no tape listens yet
  local tape <close> = lt.tape()
  local gradients = tape:gradient(mean_square_error(prediction), variables)
  local ok, message = pcall(optimizer.apply_gradients, optimizer, gradients, variables)
  print(ok and "applied" or "refused: " .. message)
  print("the cause is in " .. gradients:why(variables[1]).where)
end

print "\n3. The gradient stopped behind the first layer: only the second one learns"

model = new_model()
variables = model:parameters()
optimizer = optim.Adam { lr = 0.01 }
local before = {}
for i, v in ipairs(variables) do before[i] = v:clone() end
for i = 1, iterations do
  local tape <close> = lt.tape()
  local hidden = lt.stop_gradient(model[2](model[1](x)))
  local loss = mean_square_error(model[3](hidden))
  local gradients = tape:gradient(loss, variables)
  if i == 1 then print(gradients:why(variables[1])) end
  optimizer:apply_gradients(gradients, variables) -- skips what has no gradient
end
for i, v in ipairs(variables) do
  local change = (v - before[i]):abs():max():item()
  local fate = change > 0 and ("moved by up to %.4f"):format(change) or "unchanged"
  print(("%-16s %s"):format(v.name, fate))
end

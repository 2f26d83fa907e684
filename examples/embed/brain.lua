-- The Lua half of the embedded example: a small network that learns, between two frames of the
-- host's loop, to answer as the host does. The host owns the memory of both tensors.
local lt = require "luatape"
local nn, optim = lt.nn, lt.optim

local brain = {}

lt.manual_seed(7)
local model = nn.Sequential{ nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1) }
local opt = optim.Adam{ lr = 0.02 }

--- One training step on what the host saw last; returns the loss as a number.
function brain.learn(seen, answers)
  local tape <close> = lt.tape()
  local loss = lt.mse_loss(model(seen), answers)
  opt:apply_gradients(tape:gradient(loss, model:parameters()), model:parameters())
  return loss:item()
end

--- What the network would answer now.
function brain.answer(seen)
  return lt.no_grad(model, seen)
end

--- The first layer's weight, for the host to read back.
function brain.weight()
  return model[1].weight
end

return brain

-- Golden cases that are whole programs: tapes, transforms, optimizers, schedules. Each takes the
-- case's tensors, its attributes and the float type, and returns the outputs; the derivatives are
-- among them.
local lt = require "luatape"

local programs = {}

local function unpack(a) return table.unpack(a, 1, a.n) end

local function watching(options, ...)
  local tape = lt.tape(options)
  for _, x in ipairs { ... } do tape:watch(x) end
  return tape
end

---y, y', ..., the order-th derivative of sum(y), by nested tapes.
local function derivatives(f, x, order)
  if order == 0 then return { f(x) } end
  local tape <close> = watching(nil, x)
  local all = derivatives(f, x, order - 1)
  all[order + 1] = tape:gradient(all[order]:sum(), x)
  return all
end

local function mlp(act, x, W1, b1, W2, b2)
  return lt[act](x:matmul(W1) + b1):matmul(W2) + b2
end

local function squared_error(y, t) return ((y - t) ^ 2):mean() end

-- ---- One tape -----------------------------------------------------------------------------------

local stop = lt.stop_gradient
local stopped = {
  ["y=sum(x*stop(x^2))"] = function(x) return (x * stop(x ^ 2)):sum() end,
  ["y=sum(stop(x)*x^2)"] = function(x) return (stop(x) * x ^ 2):sum() end,
  ["y=sum(x^2-stop(x^2)+stop(sin(x)))"] = function(x)
    return (x ^ 2 - stop(x ^ 2) + stop(x:sin())):sum()
  end,
  ["y=sum(exp(stop(x)))+sum(x)"] = function(x) return stop(x):exp():sum() + x:sum() end,
  ["y=sum(x/stop(sum(x)))"] = function(x) return (x / stop(x:sum())):sum() end,
  ["y=sum(stop(round(x)-x)+x)*3"] = function(x) return (stop(x:round() - x) + x):sum() * 3 end,
}

function programs.tape_stop_gradient(a, o)
  return table.unpack(derivatives(stopped[o.formula], a[1], 1))
end

function programs.tape_persistent(a)
  local x, y = unpack(a)
  local tape <close> = watching({ persistent = true }, x, y)
  local z, w = (x ^ 2 * y):sum(), (x:sin() * y):sum() + (x * y):prod()
  local dz, dw = tape:gradient(z, { x, y }), tape:gradient(w, { x = x, y = y })
  return z, w, dz[1], dz[2], dw.x, dw.y
end

function programs.tape_unconnected(a, o)
  local x, z = unpack(a)
  local tape <close> = watching(nil, x, z)
  local y = (x ^ 2):sum()
  local g = tape:gradient(y, { x, z }, { unconnected_gradients = o.unconnected or "none" })
  return y, g[1], g[2]
end

function programs.tape_intermediate(a)
  local x = a[1]
  local tape <close> = watching(nil, x)
  local h = x ^ 2
  local y = (h:exp() * x):sum()
  local g = tape:gradient(y, { h, x })
  return y, g[1], g[2]
end

function programs.tape_multi_target(a)
  local x, c1, c2 = unpack(a)
  local tape <close> = watching({ persistent = true }, x)
  local targets = { x ^ 2, x:sin() }
  return tape:gradient(targets, x), tape:gradient(targets, x, { output_gradients = { c1, c2 } })
end

function programs.tape_branch_loop(a, o)
  local function f(x)
    local rows = {}
    for i = 1, #x do
      local q = x[i]
      for _ = 1, o.iters do
        if q:item() < 1 then q = q ^ 2 + 0.5 else q = q:sin() * 2 end
      end
      rows[i] = q
    end
    return lt.stack(rows)
  end
  return table.unpack(derivatives(f, a[1], 1))
end

function programs.tape_custom_gradient(a, o)
  local backward = {
    reverse = function(dy) return dy * -o.scale end,
    clip = function(dy) return dy:clamp { min = -o.scale, max = o.scale } end,
    ste = function(dy) return dy end,
  }
  local identity = lt.custom_gradient(function(x)
    return o.kind == "ste" and x:round() or x:clone(), backward[o.kind]
  end)
  return table.unpack(derivatives(function(x) return identity(x):exp():sum() end, a[1], 1))
end

function programs.tape_checkpoint(a, o)
  local x, t, W1, b1, W2, b2 = unpack(a)
  local tape <close> = watching(nil, x, W1, b1, W2, b2)
  local y = lt.checkpoint(function(...) return mlp(o.act or "tanh", ...) end, x, W1, b1, W2, b2)
  local loss = squared_error(y, t)
  return loss, table.unpack(tape:gradient(loss, { W1, b1, W2, b2, x }))
end

-- ---- Nested tapes -------------------------------------------------------------------------------

local nested = {
  ["x^3"] = function(x) return x ^ 3 end,
  ["sin(x^2)"] = function(x) return (x ^ 2):sin() end,
  ["exp(-x^2)"] = function(x) return (-x ^ 2):exp() end,
  ["x*log(x)"] = function(x) return x * x:log() end,
  ["1/(1+x^2)"] = function(x) return 1 / (1 + x ^ 2) end,
  ["tanh(x)*sigmoid(x)"] = function(x) return x:tanh() * x:sigmoid() end,
}

function programs.tape_nested(a, o)
  return table.unpack(derivatives(nested[o.formula], a[1], o.order or 3))
end

function programs.tape_newton_sqrt(a, o)
  return table.unpack(derivatives(function(x)
    local y = lt.ones_like(x)
    for _ = 1, o.iters do y = (y + x / y) / 2 end
    return y
  end, a[1], 2))
end

function programs.tape_reuse(a, o)
  return table.unpack(derivatives(function(x)
    local y = x
    for _ = 1, o.times do y = y * x + y end
    return y
  end, a[1], 2))
end

---loss and its gradients for the four weights, recorded by whatever tape is open.
local function loss_and_gradients(act, x, t, weights)
  local tape <close> = watching(nil, table.unpack(weights))
  local loss = squared_error(mlp(act, x, table.unpack(weights)), t)
  return loss, tape:gradient(loss, weights)
end

function programs.tape_mlp_hvp(a, o)
  local x, t, W1, b1, W2, b2, v1, v2, v3, v4 = unpack(a)
  local weights = { W1, b1, W2, b2 }
  local tape <close> = watching(nil, W1, b1, W2, b2)
  local loss, g = loss_and_gradients(o.act or "tanh", x, t, weights)
  local s = (g[1] * v1):sum() + (g[2] * v2):sum() + (g[3] * v3):sum() + (g[4] * v4):sum()
  return loss, table.unpack(tape:gradient(s, weights))
end

---The list of tensors as one vector.
local function concatenated(list)
  local flat = {}
  for i, t in ipairs(list) do flat[i] = t:reshape { -1 } end
  return lt.cat(flat)
end

function programs.tape_hessian_mlp(a, o)
  local x, t, W1, b1, W2, b2 = unpack(a)
  local weights = { W1, b1, W2, b2 }
  local tape <close> = watching({ persistent = true }, W1, b1, W2, b2)
  local loss, gradients = loss_and_gradients(o.act or "tanh", x, t, weights)
  local g, rows = concatenated(gradients), {}
  for i = 1, #g do
    rows[i] = concatenated(tape:gradient(g[i], weights, { unconnected_gradients = "zero" }))
  end
  return loss, g, lt.stack(rows)
end

function programs.tape_gradient_penalty(a)
  local x, W1, b1, W2, b2 = unpack(a)
  local outer <close> = watching(nil, W1, b1, W2, b2)
  local inner <close> = watching(nil, x)
  local g = inner:gradient(mlp("tanh", x, W1, b1, W2, b2):sum(), x)
  local penalty = ((g:norm { dim = 2 } - 1) ^ 2):mean()
  return penalty, table.unpack(
    outer:gradient(penalty, { W1, b1, W2, b2 }, { unconnected_gradients = "zero" }))
end

function programs.tape_maml(a, o)
  local start, xa, ya, xb, yb = unpack(a)
  local outer <close> = watching(nil, start)
  local w = start
  for _ = 1, o.inner_steps do
    local inner <close> = watching(nil, w)
    local loss = squared_error(xa:matmul(w), ya) + 0.1 * w:tanh():sum() ^ 2
    w = w - o.inner_lr * inner:gradient(loss, w)
  end
  local loss = squared_error(xb:matmul(w):sin(), yb)
  return loss, outer:gradient(loss, start)
end

-- ---- Jacobians and forward mode -----------------------------------------------------------------

function programs.tape_jacobian(a)
  local x, W, b = unpack(a)
  local tape <close> = watching({ persistent = true }, x, W)
  local y = (W:matmul(x) + b):tanh() * (x ^ 2):sum()
  return y, tape:jacobian(y, x), tape:jacobian(y, W)
end

function programs.tape_batch_jacobian(a)
  local x, W = unpack(a)
  local tape <close> = watching(nil, x)
  local y = x:matmul(W):sin() * x[{ {}, { 1, 1 } }]
  return y, tape:batch_jacobian(y, x)
end

function programs.tape_jvp(a)
  local x, W, dx, dW = unpack(a)
  local function f(p, q) return p:matmul(q):softmax { dim = -1 } * p:mean():exp() end
  return lt.jvp(f, { x, W }, { dx, dW })
end

function programs.tape_jvp_of_grad(a)
  local x, v = unpack(a)
  local function f(p) return (p:exp():log1p() * p):sum() + p[{ { 1, 3 } }]:prod() end
  return lt.jvp(lt.grad(f), { x }, { v })
end

-- ---- Optimizers ---------------------------------------------------------------------------------

-- Keras's names of what PyTorch has under another.
local FROM_KERAS = {
  learning_rate = "lr", epsilon = "eps", clipnorm = "clip_norm", clipvalue = "clip_value",
  global_clipnorm = "global_clip_norm", rho = "alpha",
}

---The optimizer that a case's attributes describe.
local function optimizer(o, keras)
  local settings = keras and { keras = true } or {}
  for name, value in pairs(o) do
    settings[keras and FROM_KERAS[name] or name] = value
  end
  if o.beta_1 or o.beta_2 then settings.betas = { o.beta_1 or 0.9, o.beta_2 or 0.999 } end
  for _, name in ipairs { "optimizer", "steps", "floatx", "beta_1", "beta_2" } do
    settings[name] = nil
  end
  local make = lt.optim[o.optimizer] or error("luatape has no optimizer " .. o.optimizer, 0)
  return make(settings)
end

---The parameters after each step of 20 given gradients.
local function path(a, o, keras)
  local count = a.n // 2
  local variables, steps = {}, {}
  for i = 1, count do variables[i], steps[i] = lt.variable(a[i]), {} end
  local opt = optimizer(o, keras)
  for s = 1, #a[count + 1] do
    local gradients = {}
    for i = 1, count do gradients[i] = a[count + i][s] end
    opt:apply_gradients(gradients, variables)
    for i = 1, count do steps[i][s] = variables[i]:clone() end
  end
  for i = 1, count do steps[i] = lt.stack(steps[i]) end
  return table.unpack(steps)
end

function programs.optim(a, o) return path(a, o) end
programs["optim@keras"] = function(a, o) return path(a, o, true) end

---A small network trained for some steps: the losses and the last weights.
local function train(a, o, dtype, keras)
  local x, t = unpack(a)
  local weights, losses = {}, {}
  for i = 1, 4 do weights[i] = lt.variable(a[2 + i]) end
  local opt = optimizer(o, keras)
  for s = 1, o.steps do
    local tape <close> = lt.tape()
    local loss = squared_error(mlp("relu", x, table.unpack(weights)), t)
    opt:apply_gradients(tape:gradient(loss, weights), weights)
    losses[s] = loss:item()
  end
  return lt.tensor(losses, { dtype = dtype }), table.unpack(weights)
end

function programs.tape_train(a, o, dtype) return train(a, o, dtype) end
programs["tape_train@keras"] = function(a, o, dtype) return train(a, o, dtype, true) end

---The rate of step 1, 2, ...
local function rates(a, o, dtype)
  local settings = { lr = o.base_lr }
  for name, value in pairs(o) do settings[name] = value end
  for _, name in ipairs { "scheduler", "steps", "base_lr" } do settings[name] = nil end
  local make = lt.optim.schedule[o.scheduler] or error("luatape has no schedule " .. o.scheduler, 0)
  local schedule, list = make(settings), {}
  for s = 1, o.steps do list[s] = schedule(s, a[1] and a[1][s]:item()) end
  return lt.tensor(list, { dtype = dtype })
end

programs.lr_schedule = rates
programs["lr_schedule@keras"] = rates

function programs.clip_by_value(a, o)
  return table.unpack(lt.optim.clip_by_value({ unpack(a) }, o.clip_value))
end

function programs.clip_by_norm(a, o)
  local dims
  for i, axis in ipairs(o.axes or {}) do
    dims = dims or {}
    dims[i] = axis >= 0 and axis + 1 or axis
  end
  return lt.optim.clip_by_norm(a[1], o.clip_norm, { dim = dims })
end

local function clipped_together(clip)
  return function(a, o)
    local clipped, norm = clip({ unpack(a) }, o)
    clipped[#clipped + 1] = norm
    return table.unpack(clipped)
  end
end

programs.clip_by_global_norm = clipped_together(function(list, o)
  return lt.optim.clip_by_global_norm(list, o.clip_norm)
end)
programs.clip_grad_norm_ = clipped_together(function(list, o)
  return lt.optim.clip_grad_norm(list, o.max_norm, { norm_type = o.norm_type })
end)

return programs

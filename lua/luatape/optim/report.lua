--- What a step did to each variable. Nothing is computed before somebody reads it.
local lt, core = ...
local variables = core.import "luatape.optim.variables"

local report = {}

--- One row per variable, in the order of the variables: report[i], report["name"], #report;
--- tostring(report) is a table. Norms are computed when it is first read. The updates are those of
--- the last step: once another one was taken, update_ratio is nil.
---@class luatape.optim.report
---@field [integer] luatape.optim.report.row
---@field [string] luatape.optim.report.row

---@class luatape.optim.report.row
---@field name string
---@field shape integer[]
---@field status string "ok", "zero", "missing", "nonfinite" or "skipped"
---@field gradient_norm number?
---@field update_ratio number? norm of the update / norm of the variable
---@field reason string? why the gradient is missing, zero or not finite
local meta = { __name = "luatape.optim.report", __metatable = false }

--- The key under which a report keeps what it will be made of, until it is read.
local SOURCE = {}

---@param handle userdata the optimizer in C
---@param gs table gradients, as tape:gradient returned them
---@param vars table
---@param moved boolean
---@return luatape.optim.report
function report.new(handle, gs, vars, moved)
  local source = {
    handle = handle, gs = gs, vars = vars, moved = moved, step = core.optimizer_steps(handle),
  }
  return setmetatable({ [SOURCE] = source }, meta)
end

local function update_ratio(from, v, g)
  if not from.moved or from.step ~= core.optimizer_steps(from.handle) then return nil end
  local update, weight = core.optimizer_moved(from.handle, core.optimizer_find(from.handle, v), g)
  return update and (update == 0 and 0 or update / weight)
end

local function row_of(from, v, g, place)
  local row = { name = v.name or place, shape = v.shape, status = "ok" }
  if not g then
    row.status, row.reason = "missing", (variables.reason(from.gs, v, place))
    return row
  end
  local values = g.is_sparse and g:coalesce():values() or g
  row.gradient_norm = lt.no_grad(function() return (values:norm():item()) end)
  row.update_ratio = update_ratio(from, v, g)
  if row.gradient_norm ~= row.gradient_norm or row.gradient_norm == math.huge then
    row.status = "nonfinite"
  elseif not from.moved then
    row.status = "skipped"
  elseif row.gradient_norm == 0 then
    row.status = "zero"
  end
  if row.status == "zero" or row.status == "nonfinite" then
    local text, code = variables.reason(from.gs, v, place)
    if code == row.status then row.reason = text end
  end
  return row
end

--- Fills in the rows.
local function read(self)
  local from = rawget(self, SOURCE)
  if not from then return end
  rawset(self, SOURCE, nil)
  local count = 0
  variables.each(from.vars, from.gs, function(v, g, place)
    local row = row_of(from, v, g, place)
    count = count + 1
    rawset(self, count, row)
    if rawget(self, row.name) == nil then rawset(self, row.name, row) end
  end)
end

function meta.__index(self, key)
  read(self)
  return rawget(self, key)
end

function meta.__len(self)
  read(self)
  return rawlen(self)
end

local function number(x) return x and ("%.3g"):format(x) or "-" end

--- "missing: w was not used since the tape was opened at train.lua:3. [unused]"
local function status_text(row)
  if not row.reason then return row.status end
  local first, fact = row.reason:match "^([^\n]*)\n%s*([^\n]*)"
  if not first then return row.status .. ": " .. row.reason end
  return ("%s: %s %s"):format(row.status, fact, first:match "%[[%w-]+%]" or ""):gsub(" +$", "")
end

--- A line for each variable: name, shape, norm of the gradient, norm of the update / norm of the
--- variable, status with the reason.
function meta.__tostring(self)
  local width, lines = #"variable", {}
  for i = 1, #self do width = math.max(width, #self[i].name) end
  local form = "%-" .. width .. "s  %-12s %13s  %12s  %s"
  lines[1] = form:format("variable", "shape", "gradient norm", "update ratio", "status")
  for i = 1, #self do
    local row = self[i]
    lines[i + 1] = form:format(row.name, variables.shape_text(row.shape),
      number(row.gradient_norm), number(row.update_ratio), (status_text(row)))
  end
  return table.concat(lines, "\n")
end

return report

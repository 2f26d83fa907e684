--- The face of the library. The C half has filled `lt` with the ops and constructors; here come
--- the tape, printing, and the parts that are loaded when they are first asked for.

---@class luatape
local lt, core = ...

local list_ops = lt.list_ops
lt.list_ops = nil

--- Parts that are Lua modules of their own, loaded on first use.
local lazy = {
  nn = "luatape.nn", optim = "luatape.optim", data = "luatape.data", lint = "luatape.lint",
}

setmetatable(lt, {
  __index = function(t, key)
    local value
    if key == "ops" then
      value = list_ops()
    elseif key == "help" then
      core.import("luatape.help")
      return rawget(t, key)
    elseif lazy[key] then
      value = core.import(lazy[key])
    else
      return nil
    end
    rawset(t, key, value)
    return value
  end,
  --- Names that exist but are not loaded yet, for completion.
  __methods = { nn = true, optim = true, data = true, help = true, lint = true, ops = true },
})

core.import("luatape.tape")
core.import("luatape.inspect")
core.import("luatape.transform")
core.import("luatape.gradcheck")
core.import("luatape.print")
core.import("luatape.split")

return lt

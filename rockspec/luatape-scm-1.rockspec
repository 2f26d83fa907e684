rockspec_format = "3.0"
package = "luatape"
version = "scm-1"
source = { url = "git+https://example.org/luatape.git" }
description = {
  summary = "An autodiff engine for Lua: tensors, gradient tape and optimizers in C",
  detailed = [[
    Models, losses and training loops in Lua 5.4; tensors, the gradient tape, gradients and
    optimizers in C, with BLIS for products of matrices and LAPACK (opened when it is needed) for
    inverses and decompositions. It always says why a gradient is missing.]],
  license = "MIT",
}
dependencies = { "lua ~> 5.4" }
external_dependencies = { BLIS = { library = "blis" } }
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUATAPE_MODULE_DIR = "$(LIBDIR)",
    LUATAPE_BIN_DIR = "$(BINDIR)",
    LUATAPE_TESTS = "OFF",
  },
}
test = { type = "command", script = "spec/run.lua" }

"""Wraps Python functions in builtins, for functions that replace builtins.

A Python function in a class's body becomes a method, a builtin does not: `class Poller: pause = time.sleep` has to work
with the replacement, too.

Called by: weald.asyncio, weald.builtins, weald.fcntl, weald.os, weald.select, weald.signal, weald.socket, weald.thread,
weald.time, at their ends.
Invariants:
- The builtins made here are never freed; there is one for each function that is replaced.
- At the end of the interpreter they outlive the names of the modules that they use, as the standard library's do:
  a finalizer that closes a descriptor then gets the original.
"""

from types import FunctionType

__all__ = ["as_builtin", "as_builtins"]

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #define Py_IsFinalizing _Py_IsFinalizing
    #endif

    typedef struct {PyObject *function, *original;} weald_pair;

    /* The function is kept in a module object of its own, because pickle finds a builtin of a module by its name. */
    static PyModuleDef weald_holder = {PyModuleDef_HEAD_INIT, "weald", NULL, sizeof(weald_pair), NULL};

    /* Whether the interpreter has set the names of the function's module to None. */
    static int weald_has_lost_its_names(PyObject *function) {
        return PyDict_GetItemString(PyFunction_GetGlobals(function), "__name__") == Py_None;
    }

    static PyObject *weald_call(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
        weald_pair *pair = PyModule_GetState(self);
        PyObject *called = pair->function;
        if (Py_IsFinalizing() && pair->original != Py_None && weald_has_lost_its_names(called))
            called = pair->original;
        return PyObject_Vectorcall(called, args, count, keywords);
    }

    static PyObject *weald_builtin(PyObject *function, PyObject *original, const char *name, const char *doc,
                                   PyObject *module) {
        PyObject *holder = PyModule_Create(&weald_holder), *made;
        PyMethodDef *method = holder ? PyMem_Calloc(1, sizeof(PyMethodDef)) : NULL;
        if (method == NULL) {
            Py_XDECREF(holder);
            return holder ? PyErr_NoMemory() : NULL;
        }
        *(weald_pair *)PyModule_GetState(holder) = (weald_pair){Py_NewRef(function), Py_NewRef(original)};
        method->ml_name = name;
        method->ml_doc = doc;
        method->ml_flags = METH_FASTCALL | METH_KEYWORDS;
        method->ml_meth = (PyCFunction)(void (*)(void))weald_call;
        made = PyCFunction_NewEx(method, holder, module);
        Py_DECREF(holder);
        return made;
    }
    """
    object weald_builtin(object function, object original, const char *name, const char *doc, object module)

# The bytes that builtins point into.
cdef list _texts = []


def as_builtins(namespace, originals):
    """Wrap the functions of `__implements__` in a module's `namespace` whose originals are builtins.

    `originals` is the module that they replace.  Only the core has patched it so far.
    """
    made = {}  # function to builtin: one with two names is wrapped once
    for name in namespace["__implements__"]:
        function = namespace.get(name)
        if type(function) is FunctionType and type(getattr(originals, name, function)) is not FunctionType:
            if function not in made:
                made[function] = as_builtin(function, getattr(originals, name, None))
            namespace[name] = made[function]


def as_builtin(function, original=None):
    """Return a builtin of the function's name, parameters, module and docstring that calls it.

    `original` is called instead once the interpreter has taken the names from the function's module.
    """
    name = function.__name__.encode()
    doc = f"{function.__name__}({_parameters(function)})\n--\n\n{function.__doc__ or ''}".encode()
    _texts.extend((name, doc))
    return weald_builtin(function, original, name, doc, function.__module__)


cdef str _parameters(object function):
    """The parameters in the form of `__text_signature__`.  A default that is not a literal is shown as None."""
    code = function.__code__
    positional, keyword_only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    keywords = function.__kwdefaults__ or {}
    found = []
    for index in range(positional + keyword_only):
        if index == positional:
            found.append("*")
        at = index - positional + len(defaults)
        text = names[index]
        if index >= positional:
            if text in keywords:
                text += f"={_literal(keywords[text])}"
        elif at >= 0:
            text += f"={_literal(defaults[at])}"
        found.append(text)
        if index == code.co_posonlyargcount - 1:
            found.append("/")
    return ", ".join(found)


cdef str _literal(object value):
    return repr(value) if isinstance(value, bool | int | float | str | bytes | tuple) else "None"

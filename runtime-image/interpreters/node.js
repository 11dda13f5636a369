"use strict";

/* Makes a Node wait, with what most apps require, until it is told which app it is.
 *
 * The agent starts `node --require THIS FILE` as a process of the app (agent/apps/interpreters.py):
 * its user, limits, environment, process group and output are the app's already. One line of JSON on
 * standard input says which script it is to run. Node itself then runs that, as it runs each main
 * script. What is left to be seen is its command line in /proc.
 */

const PRELOADED = ["node:crypto", "node:fs/promises", "node:http", "node:os", "node:stream/promises", "express", "ws"];
const ORDER_MAX_BYTES = 64 * 1024;

function loadModules() {
  for (const name of PRELOADED) {
    try {
      require(name);
    } catch {
      // The app that needs it will say so.
    }
  }
}

/* The command, and its folder. Ends the process if none comes. */
function waitForOrder() {
  const fs = require("node:fs");
  const buffer = Buffer.alloc(ORDER_MAX_BYTES);
  let length = 0;
  while (length === 0 || buffer[length - 1] !== 10) {
    const size = fs.readSync(0, buffer, length, ORDER_MAX_BYTES - length, null);
    if (size === 0) process.reallyExit(0);
    length += size;
  }
  return JSON.parse(buffer.toString("utf8", 0, length));
}

/* Looks to Node, and to the app, as if it had been started with this command. */
function become({ command, folder }) {
  process.chdir(folder);
  const script = require("node:path").resolve(command[1]);
  runInstead(script);
  process.argv.splice(1, process.argv.length, script, ...command.slice(2));
}

/* Without this, a program that this one forks would wait for an order, too. */
function hideOption() {
  process.execArgv.length = 0;
  process._preload_modules.length = 0;
  delete require.cache[__filename];
}

/* Have Node run this script, and not the one that it was started with. Leaves no frame in a stack. */
function runInstead(script) {
  const Module = require("node:module");
  const own = Object.getOwnPropertyDescriptor(Module, "runMain");
  Object.defineProperty(Module, "runMain", {
    configurable: true,
    get() {
      Object.defineProperty(Module, "runMain", own);
      return Module.runMain.bind(Module, script);
    },
  });
}

// The worker threads of the app get this file, too.
if (require("node:worker_threads").isMainThread) {
  loadModules();
  become(waitForOrder());
}
hideOption();

// A greeter: the object has the name of the exported interface in camelCase.
export const greeter = {
  greet(name) {
    return `Hello, ${name}!`;
  },
};

/** The version of the package. A constant, so that no file has to be found at run time; a test holds it to package.json. */
export const VERSION = '0.1.0';

/* device_args.c: see device_args.h. */
#include "command/device_args.h"

#include "command/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLE "GEUL_DEVICE"

#define SETTINGS struct geul_device_args
/* clang-format off */
const struct geul_option geul_device_options[] = {
    OPTION_TEXT(  "-dev, --device",            names,        "LIST",
                  "what computes besides the CPU: names as `geul info --devices` lists them, none, or auto, every card "
                  "there is; without it $" VARIABLE " or auto"),
    OPTION_LAYERS("-ngl, --gpu-layers, --n-gpu-layers", n_gpu_layers,
                  "how many of the last layers lie on cards, all of them with the output, or as many as fit"),
    OPTION_TEXT(  "-ts, --tensor-split",       split,        "X,Y,...",
                  "how several cards share the layers, 3,1 for instance; by their free memory when not given"),
    OPTION_FLAG(  "--exact",                   exact,
                  "on cards too every sum has one order, so that results do not depend on what is computed beside them; slower"),
    OPTION_END,
};
/* clang-format on */

/* The list of names that counts; *typed: whether it is an option's. */
static const char *names_of(const struct geul_device_args *args, bool *typed)
{
    const char *variable = getenv(VARIABLE);
    *typed = args->names != NULL;
    if (args->names)
        return args->names;
    return variable && *variable ? variable : "auto";
}

/* Reads "3,1"; llama.cpp takes a slash too. Returns 0, or 2 after a message. */
static int parse_split(const char *text, float *out, int most)
{
    int n = 0;
    float sum = 0;
    for (const char *at = text;; at++) {
        char *end;
        double v = strtod(at, &end);
        if (end == at || (*end && *end != ',' && *end != '/') || !(v >= 0 && v <= 1e9))
            return geul_report_usage("--tensor-split: \"%s\" is not a list of numbers such as 3,1", text);
        if (n == most)
            return geul_report_usage("--tensor-split: at most %d devices can share a model", most);
        out[n++] = (float)v;
        sum += (float)v;
        at = end;
        if (!*at)
            break;
    }
    return sum > 0 ? 0 : geul_report_usage("--tensor-split: \"%s\" gives nothing to any device", text);
}

int geul_device_args_apply(const struct geul_device_args *args, struct geul_model_options *options)
{
    bool typed;
    options->devices = names_of(args, &typed);
    options->n_gpu_layers = args->n_gpu_layers;
    return args->split ? parse_split(args->split, options->tensor_split,
                                     (int)(sizeof options->tensor_split / sizeof *options->tensor_split))
                       : 0;
}

void geul_device_args_explain(const struct geul_device_args *args, const struct geul_context *ctx)
{
    bool typed;
    const char *names = names_of(args, &typed);
    if (!typed && geul_error_status(ctx) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "device"))
        geul_report_note("the devices are those of the variable " VARIABLE "=%s", names);
}

void geul_device_args_tell_missing(const struct geul_device_args *args)
{
    bool typed;
    char why[700];
    const char *names = names_of(args, &typed);
    bool meant = args->n_gpu_layers > 0 || args->n_gpu_layers == GEUL_LAYERS_ALL;
    bool none = strcmp(names, "none") == 0 || strcmp(names, "cpu") == 0;
    if (!meant || (none && typed))
        return;
    if (none)
        snprintf(why, sizeof why, VARIABLE "=%s", names);
    bool known = none || geul_backend_missing(0, why, sizeof why);
    geul_report_note("warning: -ngl: there is no GPU to use%s%s%s; everything runs on the CPU", known ? " (" : "",
                     known ? why : "", known ? ")" : "");
}

"""Every module, name and signature that handlers, tests and scripts import."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

SURFACE = {
    "ts": "__version__",
    "ts.version": "__version__ version_path",
    "ts.context": "Context RequestProcessor",
    "ts.service": "Service PREDICTION_METRIC emit_metrics PredictionException Context RequestProcessor "
    "create_predict_response get_yaml_config",
    "ts.async_service": "AsyncService predict",
    "ts.model_loader": "ModelLoaderFactory ModelLoader TsModelLoader",
    "ts.model_service_worker": "TorchModelServiceWorker",
    "ts.model_service.model_service": "ModelService SingleNodeService",
    "ts.model_server": "start",
    "ts.arg_parser": "ArgParser",
    "ts.launcher": "start stop register_model register_model_with_params Tee PrintTillTheEnd",
    "ts.llm_launcher": "main",
    "ts.protocol.otf_message_handler": "retrieve_msg create_predict_response create_load_model_response "
    "encode_response_headers send_intermediate_predict_response LOAD_MSG PREDICT_MSG RESPONSE END_OF_LIST int_size "
    "bool_size",
    "ts.handler_utils.utils": "import_class send_intermediate_predict_response create_predict_response",
    "ts.handler_utils.timer": "timed",
    "ts.handler_utils.micro_batching": "MicroBatching WorkerThread execute_call HANDLER_METHODS PROFILER_AVAILABLE",
    "ts.handler_utils.hf_batch_streamer": "TextIteratorStreamerBatch",
    "ts.handler_utils.text_utils": "get_tokenizer ngrams_iterator",
    "ts.handler_utils.distributed.deepspeed": "get_ds_engine create_checkpoints_json",
    "ts.handler_utils.distributed.pt_pippy": "initialize_rpc_workers get_pipeline_driver",
    "ts.handler_utils.preprocess.dali": "get_dali_pipeline",
    "ts.utils.util": "PT2Backend CLEANUP_REGEX list_classes_from_module check_valid_pt2_backend load_label_mapping "
    "map_class_to_label get_yaml_config PredictionException deprecated",
    "ts.utils.hf_utils": "download_model",
    "ts.utils.timeit_decorator": "timeit",
    "ts.utils.setup_model_venv": "main",
    "ts.metrics.caching_metric": "CachingMetric",
    "ts.metrics.dimension": "Dimension",
    "ts.metrics.metric": "Metric",
    "ts.metrics.metric_abstract": "MetricAbstract",
    "ts.metrics.metric_cache_abstract": "MetricCacheAbstract",
    "ts.metrics.metric_cache_errors": "GeneralMetricsCacheError MetricsCacheIOError MetricsCachePyYamlError "
    "MetricsCacheTypeError MetricsCacheValueError MetricsCacheKeyError",
    "ts.metrics.metric_cache_yaml_impl": "MetricsCacheYamlImpl",
    "ts.metrics.metric_collector": "main",
    "ts.metrics.metric_encoder": "MetricEncoder",
    "ts.metrics.metric_type_enum": "MetricTypes",
    "ts.metrics.metrics_store": "MetricsStore",
    "ts.metrics.process_memory_metric": "get_cpu_usage check_process_mem_usage",
    "ts.metrics.system_metrics": "collect_all gpu_utilization cpu_utilization memory_used memory_available "
    "memory_utilization disk_used disk_utilization disk_available system_metrics",
    "ts.metrics.unit": "Units",
    "ts.torch_handler.base_handler": "BaseHandler setup_ort_session PROFILER_AVAILABLE XLA_AVAILABLE PT2_AVAILABLE "
    "PT230_AVAILABLE IPEX_AVAILABLE ONNX_AVAILABLE",
    "ts.torch_handler.vision_handler": "VisionHandler",
    "ts.torch_handler.image_classifier": "ImageClassifier",
    "ts.torch_handler.image_segmenter": "ImageSegmenter",
    "ts.torch_handler.object_detector": "ObjectDetector",
    "ts.torch_handler.text_handler": "TextHandler CONTRACTIONS_PATTERN",
    "ts.torch_handler.text_classifier": "TextClassifier",
    "ts.torch_handler.contractions": "CONTRACTION_MAP",
    "ts.torch_handler.densenet_handler": "DenseNetHandler list_classes_from_module",
    "ts.torch_handler.dali_handler": "DALIHandler",
    "ts.torch_handler.dali_image_classifier": "DALIImageClassifier",
    "ts.torch_handler.vllm_handler": "VLLMHandler",
    "ts.torch_handler.trt_llm_handler": "TRTLLMHandler",
    "ts.torch_handler.distributed.base_deepspeed_handler": "BaseDeepSpeedHandler",
    "ts.torch_handler.distributed.base_pippy_handler": "BasePippyHandler",
    "ts.torch_handler.request_envelope.base": "BaseEnvelope",
    "ts.torch_handler.request_envelope.body": "BodyEnvelope",
    "ts.torch_handler.request_envelope.json": "JSONEnvelope",
    "ts.torch_handler.request_envelope.kserve": "KServeEnvelope",
    "ts.torch_handler.request_envelope.kservev2": "KServev2Envelope",
    "ts.torch_handler.unit_tests.test_utils.mock_context": "MockContext",
    "ts.torch_handler.unit_tests.test_utils.model_dir": "download_model copy_files",
}

# Parameters behind `self`, in order, with their defaults.
SIGNATURES = {
    "ts.context:Context.__init__": "model_name model_dir manifest batch_size gpu mms_version "
    "limit_max_image_pixels=True metrics=None model_yaml_config=None",
    "ts.context:Context.get_request_id": "idx=0",
    "ts.context:Context.set_response_status": "code=200 phrase='' idx=0",
    "ts.context:Context.set_all_response_status": "code=200 phrase=''",
    "ts.context:RequestProcessor.report_status": "code reason_phrase=None",
    "ts.service:Service.__init__": "model_name model_dir manifest entry_point gpu batch_size "
    "limit_max_image_pixels=True metrics_cache=None",
    "ts.service:Service.predict": "batch",
    "ts.model_loader:TsModelLoader.load": "model_name model_dir handler=None gpu_id=None batch_size=None envelope=None "
    "limit_max_image_pixels=True metrics_cache=None",
    "ts.model_service_worker:TorchModelServiceWorker.__init__": "s_type=None s_name=None host_addr=None port_num=None "
    "metrics_config=None async_comm=False",
    "ts.model_service.model_service:ModelService.__init__": "model_name model_dir manifest gpu=None",
    "ts.launcher:start": "model_store=None snapshot_file=None no_config_snapshots=False plugin_folder=None "
    "disable_token=False models=None enable_model_api=False",
    "ts.launcher:stop": "wait=True",
    "ts.launcher:register_model": "model_name url",
    "ts.launcher:register_model_with_params": "params",
    "ts.protocol.otf_message_handler:create_predict_response": "ret req_id_map message code context=None "
    "ts_stream_next=False",
    "ts.protocol.otf_message_handler:send_intermediate_predict_response": "ret req_id_map message code context=None",
    "ts.handler_utils.utils:send_intermediate_predict_response": "ret req_id_map message code context",
    "ts.handler_utils.utils:import_class": "class_name module_prefix=None",
    "ts.handler_utils.micro_batching:MicroBatching.__init__": "parent_handler micro_batch_size=1 parallelism=None",
    "ts.handler_utils.hf_batch_streamer:TextIteratorStreamerBatch.__init__": "tokenizer batch_size skip_prompt=False "
    "timeout=None kwargs",
    "ts.handler_utils.text_utils:get_tokenizer": "tokenizer language='en'",
    "ts.handler_utils.text_utils:ngrams_iterator": "token_list ngrams",
    "ts.handler_utils.distributed.deepspeed:get_ds_engine": "model ctx",
    "ts.handler_utils.distributed.pt_pippy:initialize_rpc_workers": "local_rank world_size ctx",
    "ts.handler_utils.distributed.pt_pippy:get_pipeline_driver": "model world_size ctx",
    "ts.handler_utils.preprocess.dali:get_dali_pipeline": "ctx",
    "ts.utils.util:PredictionException.__init__": "message error_code=500",
    "ts.utils.util:list_classes_from_module": "module parent_class=None",
    "ts.utils.util:map_class_to_label": "probs mapping=None lbl_classes=None",
    "ts.utils.util:load_label_mapping": "mapping_file_path",
    "ts.utils.util:deprecated": "version replacement='' klass=<class 'PendingDeprecationWarning'>",
    "ts.utils.hf_utils:download_model": "model_id revision='main' model_path='.cache' use_auth_token=True",
    "ts.metrics.metric:Metric.__init__": "name value unit dimensions request_id=None metric_method=None",
    "ts.metrics.metrics_store:MetricsStore.__init__": "request_ids model_name",
    "ts.torch_handler.base_handler:BaseHandler.initialize": "context",
    "ts.torch_handler.base_handler:BaseHandler.preprocess": "data",
    "ts.torch_handler.base_handler:BaseHandler.inference": "data args kwargs",
    "ts.torch_handler.base_handler:BaseHandler.postprocess": "data",
    "ts.torch_handler.base_handler:BaseHandler.handle": "data context",
    "ts.torch_handler.base_handler:BaseHandler.explain_handle": "data_preprocess raw_data",
    "ts.torch_handler.base_handler:BaseHandler._load_pickled_model": "model_dir model_file model_pt_path",
    "ts.torch_handler.base_handler:BaseHandler._load_torchscript_model": "model_pt_path",
    "ts.torch_handler.base_handler:BaseHandler._load_torch_export_aot_compile": "model_so_path",
    "ts.torch_handler.base_handler:BaseHandler._infer_with_profiler": "data",
    "ts.torch_handler.text_classifier:TextClassifier.get_insights": "text_preprocess _ target=0",
    "ts.torch_handler.text_handler:TextHandler.get_source_vocab_path": "ctx",
    "ts.torch_handler.text_handler:TextHandler.get_word_token": "input_tokens",
    "ts.torch_handler.text_handler:TextHandler.summarize_attributions": "attributions",
    "ts.torch_handler.request_envelope.base:BaseEnvelope.__init__": "handle_fn",
    "ts.torch_handler.unit_tests.test_utils.mock_context:MockContext.__init__": "model_pt_file='model.pt' "
    "model_dir='ts/torch_handler/unit_tests/models/tmp' model_file='model.py' gpu_id='0' model_name='mnist' "
    "model_yaml_config_file=None",
}

# What handlers import in practice; it needs torch, PyYAML, packaging, psutil and Pillow, and numpy for DALI.
IN_PRACTICE = [
    "ts.torch_handler.base_handler",
    "ts.torch_handler.image_classifier",
    "ts.torch_handler.object_detector",
    "ts.torch_handler.text_classifier",
    "ts.torch_handler.dali_handler",
    "ts.torch_handler.distributed.base_deepspeed_handler",
    "ts.torch_handler.distributed.base_pippy_handler",
    "ts.torch_handler.unit_tests.test_utils.mock_context",
    "ts.context",
    "ts.handler_utils.timer",
    "ts.handler_utils.micro_batching",
    "ts.handler_utils.utils",
    "ts.handler_utils.hf_batch_streamer",
    "ts.handler_utils.distributed.deepspeed",
    "ts.handler_utils.distributed.pt_pippy",
    "ts.metrics.process_memory_metric",
    "ts.protocol.otf_message_handler",
    "ts.utils.util",
]


@pytest.mark.parametrize("module", SURFACE)
def test_names(module: str) -> None:
    missing = [name for name in SURFACE[module].split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures(path: str) -> None:
    module, _, name = path.partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    parameters = [spelled(each) for each in inspect.signature(target).parameters.values() if each.name != "self"]
    assert " ".join(parameters) == SIGNATURES[path]


def spelled(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"


@pytest.mark.check("handlers", 1)
def test_what_handlers_import_needs_no_optional_package() -> None:
    optional = ["torchvision", "captum", "transformers", "onnxruntime", "requests", "deepspeed", "pippy", "nvidia.dali"]
    script = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({optional!r}))  # importing any of these fails now
for name in {IN_PRACTICE!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_parsers() -> None:
    parser = importlib.import_module("ts.arg_parser").ArgParser
    assert parser.ts_parser().parse_args(["--start", "--ncs"]).no_config_snapshots
    assert parser.extract_args(["--model-store", "store"]).model_store == "store"
    worker = parser.model_service_worker_args().parse_args(["--sock-type", "unix", "--sock-name", "s", "--async"])
    assert (worker.sock_type, worker.sock_name, worker.async_comm, worker.port) == ("unix", "s", True, None)
